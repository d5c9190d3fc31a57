// Sound of one clip at a time. Times are seconds of the recording, whatever the file's speed.
Canopy.Player = class {
  constructor(expansion, onMove) {
    this.expansion = expansion;
    this.onMove = onMove;
    this.audio = new Audio();
    this.audio.preload = "auto";
    // Slower is also lower: that is what brings high calls within hearing.
    this.audio.preservesPitch = false;
    this.clip = null;
    this.wanted = null;
    this.stopAt = null;
    this.audio.addEventListener("loadedmetadata", () => this.seekFile());
    for (const name of ["play", "pause", "ended", "seeked", "error"]) {
      this.audio.addEventListener(name, () => this.move());
    }
  }
  get playing() {
    return !this.audio.paused && !this.audio.ended;
  }
  get silent() {
    return !this.clip || !this.clip.snd || this.audio.error !== null;
  }
  get time() {
    const start = this.clip ? this.clip.s : 0;
    if (this.wanted !== null) return this.wanted;
    return start + this.audio.currentTime / this.expansion;
  }
  load(clip) {
    if (clip === this.clip) return;
    this.audio.pause();
    if (this.url) URL.revokeObjectURL(this.url);
    this.clip = clip;
    this.url = null;
    this.wanted = clip.s;
    if (!clip.snd) {
      this.audio.removeAttribute("src");
      return;
    }
    const inside = clip.snd.match(/^data:(.*);base64,(.*)$/);
    if (inside) {
      // Browsers seek in a blob; not all do in an address that holds the data itself.
      this.url = URL.createObjectURL(new Blob([Canopy.bytes(inside[2])], { type: inside[1] }));
    }
    const rate = this.audio.playbackRate;
    this.audio.src = this.url || clip.snd;
    this.audio.defaultPlaybackRate = rate;
    this.audio.playbackRate = rate;
  }
  seek(time) {
    this.wanted = Math.min(Math.max(time, this.clip.s), this.clip.e);
    this.stopAt = null;
    this.seekFile();
    this.onMove();
  }
  seekFile() {
    if (this.wanted === null || this.audio.readyState < 1) return;
    this.audio.currentTime = (this.wanted - this.clip.s) * this.expansion;
    this.wanted = null;
  }
  toggle() {
    if (this.playing) this.audio.pause();
    else this.play(null);
  }
  play(stopAt) {
    if (this.silent) return;
    this.stopAt = stopAt;
    this.audio.play().catch(() => this.onMove()); // A browser may refuse until somebody clicks.
  }
  speed(rate) {
    this.audio.defaultPlaybackRate = rate;
    this.audio.playbackRate = rate;
  }
  move() {
    this.onMove();
    if (!this.playing) return;
    if (this.stopAt !== null && this.time >= this.stopAt) this.audio.pause();
    else requestAnimationFrame(() => this.move());
  }
};
