(() => {
  const status = document.getElementById("status");
  const CROSS_FADE = 0.012; // seconds: too short to hear, long enough not to click
  const STEP = 1, LEAP = 5; // seconds that the arrow keys move

  const clock = (seconds) => {
    const tenths = Math.round(seconds * 10);
    return `${Math.floor(tenths / 600)}:${((tenths % 600) / 10).toFixed(1).padStart(4, "0")}`;
  };
  const bytesOf = (address) => {
    const text = atob(address.slice(address.indexOf(",") + 1));
    return Uint8Array.from(text, (letter) => letter.charCodeAt(0)).buffer;
  };

  let shared = null;
  const sharedContext = () => (shared ??= new AudioContext());

  // Three buffers that run in lock-step, each behind its own gain: switching moves gains and nothing else.
  class Mixer {
    static async of(sounds) {
      const context = sharedContext();
      const buffers = await Promise.all(sounds.map((sound) => context.decodeAudioData(bytesOf(sound.src))));
      return new Mixer(context, buffers);
    }
    constructor(context, buffers) {
      this.context = context;
      this.buffers = buffers;
      this.playing = [];
      this.offset = 0;
      this.gains = buffers.map(() => {
        const gain = context.createGain();
        gain.gain.value = 0;
        gain.connect(context.destination);
        return gain;
      });
    }
    get position() {
      return this.playing.length ? this.offset + Math.max(0, this.context.currentTime - this.began) : this.offset;
    }
    async start(offset, track) {
      await this.context.resume();
      this.pause(); // here, where nothing can come between: of two starts the later one is heard alone
      this.offset = offset;
      this.began = this.context.currentTime + 0.02;
      this.gains.forEach(({ gain }, number) => {
        gain.cancelScheduledValues(0);
        gain.setValueAtTime(number === track ? 1 : 0, this.context.currentTime);
      });
      this.playing = this.buffers.map((buffer, number) => {
        const source = this.context.createBufferSource();
        source.buffer = buffer;
        source.connect(this.gains[number]);
        source.start(this.began, offset);
        return source;
      });
    }
    choose(track) {
      const now = this.context.currentTime;
      this.gains.forEach(({ gain }, number) => {
        gain.cancelScheduledValues(now);
        gain.setValueAtTime(gain.value, now);
        gain.linearRampToValueAtTime(number === track ? 1 : 0, now + CROSS_FADE);
      });
    }
    pause() {
      this.offset = this.position;
      for (const source of this.playing) source.stop();
      this.playing = [];
    }
  }

  // Where a browser has no Web Audio: three players, of which two are muted.
  class Players {
    constructor(sounds) {
      this.sounds = sounds;
      this.track = 0;
    }
    get position() { return this.sounds[this.track].currentTime; }
    async start(offset, track) {
      this.choose(track);
      for (const sound of this.sounds) sound.currentTime = offset;
      await Promise.all(this.sounds.map((sound) => sound.play()));
    }
    choose(track) {
      const place = this.position;
      this.track = track;
      this.sounds.forEach((sound, number) => { sound.muted = number !== track; });
      if (Math.abs(this.position - place) > 0.05) this.sounds[track].currentTime = place;
    }
    pause() { for (const sound of this.sounds) sound.pause(); }
  }

  class Desk {
    constructor(article) {
      const find = (selector) => article.querySelector(selector);
      this.article = article;
      this.seconds = Number(article.dataset.seconds);
      this.sounds = [...article.querySelectorAll(".sound")];
      this.choices = [...article.querySelectorAll(".choice")];
      this.lanes = ["input", "target", "output"].map((name) => find(`.lane.${name}`));
      this.button = find(".play");
      this.title = this.button.getAttribute("aria-label").replace(/^Play /, "");
      [this.seek, this.now, this.cursor] = [".seek", ".now", ".cursor"].map(find);
      this.position = 0;
      this.mixer = null;
      this.running = this.wanted = false;
      find(".total").textContent = `of ${clock(this.seconds)}`;
      find(".desk").hidden = false;
      article.classList.add("ready");
      this.listen();
      this.choose(this.choices.findIndex((choice) => choice.getAttribute("aria-pressed") === "true"));
      this.show();
    }

    listen() {
      this.button.addEventListener("click", () => this.toggle());
      this.choices.forEach((choice, number) => choice.addEventListener("click", (event) => {
        this.choose(number);
        if (event.detail) choice.blur(); // clicked: leave the space bar to the play button
      }));
      this.seek.addEventListener("input", () => this.go(Number(this.seek.value)));
      for (const strip of this.article.querySelectorAll(".strip")) {
        const to = (event) => {
          const box = strip.getBoundingClientRect();
          this.go(((event.clientX - box.left) / box.width) * this.seconds);
        };
        strip.addEventListener("click", to);
        strip.addEventListener("pointermove", (event) => { if (event.buttons === 1 && event.pointerType === "mouse") to(event); });
      }
      for (const kind of ["pointerdown", "focusin"]) this.article.addEventListener(kind, () => makeCurrent(this));
    }

    toggle() { return this.running ? this.pause() : this.play(); }

    async play() {
      makeCurrent(this);
      for (const other of desks) if (other !== this) other.pause();
      this.wanted = true;
      this.button.setAttribute("aria-busy", "true");
      try {
        if (typeof AudioContext === "function") sharedContext().resume(); // within the gesture that asked for it
        this.mixer ??= typeof AudioContext === "function" ? await Mixer.of(this.sounds) : new Players(this.sounds);
        if (!this.wanted) return; // another piece was begun while this one was decoded
        if (this.position >= this.seconds - 0.01) this.position = 0;
        await this.mixer.start(this.position, this.track);
        this.running = true;
      } catch {
        status.textContent = "This browser can't play the sound; the files beside the page hold it";
      } finally {
        this.button.removeAttribute("aria-busy");
      }
      this.show();
      this.follow();
    }

    pause() {
      this.wanted = false;
      if (!this.running) return;
      this.position = Math.min(this.mixer.position, this.seconds);
      this.mixer.pause();
      this.running = false;
      this.show();
    }

    choose(track) {
      this.track = track;
      this.choices.forEach((choice, number) => choice.setAttribute("aria-pressed", String(number === track)));
      this.lanes.forEach((lane, number) => lane.classList.toggle("heard", number === track));
      if (this.running) this.mixer.choose(track);
    }

    go(place) {
      this.position = Math.min(Math.max(place, 0), this.seconds);
      if (this.running) this.mixer.start(this.position, this.track);
      this.show();
    }

    move(by) { this.go((this.running ? this.mixer.position : this.position) + by); }

    follow() {
      if (!this.running) return;
      this.position = this.mixer.position;
      if (this.position >= this.seconds) {
        this.pause();
        this.position = this.seconds;
      }
      this.show();
      requestAnimationFrame(() => this.follow());
    }

    show() {
      const place = Math.min(this.position, this.seconds);
      this.article.classList.toggle("playing", this.running);
      this.button.setAttribute("aria-label", `${this.running ? "Pause" : "Play"} ${this.title}`);
      this.seek.value = String(place);
      this.seek.setAttribute("aria-valuetext", `${clock(place)} of ${clock(this.seconds)}`);
      this.now.textContent = clock(place);
      this.cursor.hidden = !place;
      this.cursor.style.left = `${(100 * place) / this.seconds}%`;
    }
  }

  let current = null;
  const makeCurrent = (desk) => {
    current = desk;
    for (const other of desks) other.article.classList.toggle("current", other === desk && desks.length > 1);
  };
  const desks = [];
  for (const article of document.querySelectorAll(".piece")) desks.push(new Desk(article));
  current = desks[0] ?? null;

  document.addEventListener("keydown", (event) => {
    if (!current || event.ctrlKey || event.metaKey || event.altKey) return;
    const on = document.activeElement ?? document.body;
    const scrolls = on.matches("pre, .scroll, textarea, select, audio");
    if (event.key === " ") {
      if (scrolls || on.matches("button, a, summary")) return; // these have a use for it themselves
      current.toggle();
    } else if (["1", "2", "3"].includes(event.key)) {
      current.choose(Number(event.key) - 1);
    } else if (!scrolls && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
      current.move((event.key === "ArrowLeft" ? -1 : 1) * (event.shiftKey ? LEAP : STEP));
    } else {
      return;
    }
    event.preventDefault();
  });
})();
