(() => {
  const status = document.getElementById("status");

  for (const copy of document.querySelectorAll(".copy")) {
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      const done = await copyText(copy.dataset.copy, copy.closest("footer").querySelector(".key"));
      copy.textContent = done ? "Copied" : "Selected";
      status.textContent = done ? "Key copied" : "Key selected: copy it with the keyboard";
      setTimeout(() => { copy.textContent = "Copy key"; status.textContent = ""; }, 1600);
    });
  }
  async function copyText(text, element) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      getSelection().selectAllChildren(element);
      return false;
    }
  }

  const players = [...document.querySelectorAll("audio")];
  for (const player of players) {
    const picture = player.closest(".side").querySelector(".picture");
    const head = picture.querySelector(".head");
    const part = Number(picture.dataset.part) || 1;
    const follow = () => {
      head.hidden = !player.currentTime;
      head.style.left = `${(100 * part * player.currentTime) / (player.duration || 1)}%`;
      if (!player.paused) requestAnimationFrame(follow);
    };
    player.addEventListener("play", () => {
      const own = player.closest(".card");
      for (const other of players) if (other.closest(".card") !== own) other.pause();
      follow();
    });
    player.addEventListener("seeked", follow);
    picture.classList.add("seekable");
    picture.addEventListener("click", (event) => {
      const box = picture.getBoundingClientRect();
      const place = (event.clientX - box.left) / box.width / part;
      if (Number.isFinite(player.duration)) player.currentTime = Math.min(place, 1) * player.duration;
    });
  }
  for (const both of document.querySelectorAll(".together")) {
    const pair = [...both.closest(".card").querySelectorAll("audio")];
    const playing = () => pair.some((player) => !player.paused && !player.ended);
    const show = () => { both.textContent = playing() ? "Pause" : "Play both"; };
    both.hidden = false;
    for (const player of pair) for (const kind of ["play", "pause", "ended"]) player.addEventListener(kind, show);
    both.addEventListener("click", () => {
      if (playing()) {
        for (const player of pair) player.pause();
        return;
      }
      const start = pair[0].ended ? 0 : pair[0].currentTime;
      for (const player of pair) player.currentTime = start;
      for (const player of pair) player.play().catch(() => { status.textContent = "This browser can't play the sound"; });
    });
  }
})();
