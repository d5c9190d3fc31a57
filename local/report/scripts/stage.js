// The picture of a clip: spectrogram with boxes, and scores, on one time axis with a cursor.
Canopy.Stage = class {
  static LEFT = 40;
  static RIGHT = 8;
  static STRIP = 52;
  static MOST_STRIPS = 5;
  // Kinds of events by number: word, sign, whether somebody gave it (or a machine found it), and
  // the row below the scores in which its bar lies, so that none covers one of another kind.
  static KINDS = [
    { word: "true", sign: "●", given: true, row: 0 },
    { word: "known positive", sign: "○", given: true, row: 0 },
    { word: "known negative", sign: "✕", given: true, row: 0 },
    { word: "pseudo label", sign: "▲", given: false, row: 1 },
    { word: "detected", sign: "◆", given: false, row: 2 },
    { word: "missed", sign: "◇", given: true, row: 2 },
  ];

  constructor(host, data, onSeek, onChoose) {
    this.host = host;
    this.data = data;
    this.onSeek = onSeek;
    this.onChoose = onChoose;
    new ResizeObserver(() => this.width !== this.host.clientWidth && this.draw()).observe(host);
    host.addEventListener("click", (event) => {
      if (this.clip) onSeek(this.timeAt(event.clientX));
    });
  }
  show(clip, items, chosen) {
    this.clip = clip;
    this.items = items;
    this.chosen = chosen;
    this.draw();
  }
  get inner() {
    return this.width - Canopy.Stage.LEFT - Canopy.Stage.RIGHT;
  }
  x(time) {
    const share = (time - this.clip.s) / (this.clip.e - this.clip.s);
    return Canopy.Stage.LEFT + this.inner * Math.min(Math.max(share, 0), 1);
  }
  timeAt(clientX) {
    const x = clientX - this.host.getBoundingClientRect().left - Canopy.Stage.LEFT;
    return this.clip.s + (x / this.inner) * (this.clip.e - this.clip.s);
  }
  draw() {
    this.width = this.host.clientWidth;
    // While the page is laid out, or the part around is closed, there is no room: draw later.
    if (!this.clip || this.inner <= 0) return;
    this.spectrum = this.width < 500 ? 160 : 220;
    const strips = this.strips();
    const axis = this.spectrum + 4 + strips.length * Canopy.Stage.STRIP;
    this.height = axis + 34;
    const svg = Canopy.svg("svg", {
      width: this.width, height: this.height, viewBox: `0 0 ${this.width} ${this.height}`,
      role: "img", "aria-label": this.words(),
    });
    this.drawSpectrum(svg);
    strips.forEach((trace, index) =>
      this.drawStrip(svg, trace, this.spectrum + 4 + index * Canopy.Stage.STRIP),
    );
    if (strips.length) {
      svg.append(Canopy.svg("text", { class: "scale", x: 0, y: this.spectrum + 25 }, "score"));
    }
    this.drawAxis(svg, axis);
    this.cursor = Canopy.svg("line", { class: "cursor", y1: 0, y2: axis });
    svg.append(this.cursor);
    this.host.replaceChildren(svg);
    this.moveTo(this.time ?? this.clip.s);
  }
  words() {
    const { clip, data } = this;
    const named = this.items.map((item) => data.labels[item.c]);
    return (
      `Spectrogram of ${clip.id}, ${clip.s.toFixed(1)} to ${clip.e.toFixed(1)} seconds, with ` +
      `${this.items.length} detections or missed labels (${[...new Set(named)].join(", ")}) and ` +
      `${clip.ev.length} labels, and scores over time below it.`
    );
  }
  moveTo(time) {
    this.time = time;
    if (!this.cursor) return;
    const x = this.x(time).toFixed(1);
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
  }
  // The chosen item's class is always among those drawn.
  strips() {
    const most = this.width < 500 ? 3 : Canopy.Stage.MOST_STRIPS;
    const kept = this.clip.tr.slice(0, most);
    const own = this.clip.tr.find(([label]) => this.chosen && label === this.chosen.c);
    if (own && !kept.includes(own)) kept[most - 1] = own;
    return kept;
  }

  // ------------------------------------------------------------------------------- spectrogram
  drawSpectrum(svg) {
    const { LEFT } = Canopy.Stage;
    const place = { x: LEFT, y: 0, width: this.inner, height: this.spectrum };
    svg.append(Canopy.svg("rect", { ...place, class: "nothing" }));
    if (this.clip.pic) {
      svg.append(Canopy.svg("image", { ...place, href: this.clip.pic, preserveAspectRatio: "none" }));
    }
    for (const [hertz, text] of this.frequencies()) {
      const y = this.y(hertz);
      svg.append(Canopy.svg("line", { class: "tick", x1: LEFT - 4, x2: LEFT, y1: y, y2: y }));
      const middle = Math.min(Math.max(y + 4, 10), this.spectrum - 1);
      svg.append(Canopy.svg("text", { class: "scale end", x: LEFT - 6, y: middle }, text));
    }
    svg.append(Canopy.svg("text", { class: "scale", x: 0, y: 11 }, "kHz"));
    const events = this.clip.ev.map(([kind, c, on, off, lo, hi]) => ({ kind, c, on, off, lo, hi }));
    const rest = this.items.filter((item) => item !== this.chosen);
    const boxes = [...events, ...rest, ...(this.items.includes(this.chosen) ? [this.chosen] : [])];
    for (const event of boxes) this.drawBox(svg, event);
    // The chosen one's tag is placed first; tags that find no room are left out. No box crosses one.
    this.tags = [];
    for (const event of boxes.reverse()) this.drawTag(svg, event);
  }
  y(hertz) {
    const centres = this.data.centres;
    const n = centres.length;
    if (hertz <= centres[0]) return this.spectrum;
    if (hertz >= centres[n - 1]) return 0;
    const above = centres.findIndex((centre) => centre >= hertz);
    const row = above - 1 + (hertz - centres[above - 1]) / (centres[above] - centres[above - 1]);
    return this.spectrum * (1 - (row + 0.5) / n);
  }
  frequencies() {
    const centres = this.data.centres;
    if (!centres.length) return [];
    const kept = [];
    for (let power = 6; power >= 1; power--) {
      for (const step of [5, 2, 1]) {
        const hertz = step * 10 ** power;
        if (hertz < centres[0] || hertz > centres[centres.length - 1]) continue;
        const y = this.y(hertz);
        const free = y > 18 && kept.every(([other]) => Math.abs(this.y(other) - y) > 22);
        if (free) kept.push([hertz, String(hertz / 1000)]);
      }
    }
    return kept;
  }
  // Left, top, width and height of an event; the whole height where its band is not known.
  place(event) {
    const known = event.lo !== null && event.hi !== null && this.data.centres.length > 0;
    const y = known ? this.y(event.hi) : 1;
    const bottom = known ? Math.max(this.y(event.lo), y + 4) : this.spectrum - 1;
    const x = this.x(event.on);
    return { x, y, width: Math.max(this.x(event.off) - x, 2), height: bottom - y };
  }
  drawBox(svg, event) {
    const place = this.place(event);
    const group = Canopy.svg("g", { class: this.look("box", event) });
    group.append(Canopy.svg("rect", { ...place, class: "rim" }));
    group.append(Canopy.svg("rect", { ...place, class: "edge" }));
    const { word } = Canopy.Stage.KINDS[event.kind];
    group.append(Canopy.svg("title", {}, `${word}: ${this.data.titles[event.c]}`));
    this.choosable(group, event);
    svg.append(group);
  }
  look(name, event) {
    return `${name} k${event.kind}${event === this.chosen ? " chosen" : ""}`;
  }
  // Given events bear their tag above, found ones below: the two often cover each other.
  drawTag(svg, event) {
    const kind = Canopy.Stage.KINDS[event.kind];
    const box = this.place(event);
    const text = `${kind.sign} ${this.short(this.data.labels[event.c])}`;
    const width = 7.2 * text.length + 4;
    const x = Math.min(box.x, this.width - Canopy.Stage.RIGHT - width);
    const bottom = box.y + box.height;
    const places = kind.given ? [box.y, bottom - 14, box.y - 14] : [bottom - 14, box.y, bottom];
    const y = places.find((top) => this.isFree(x, top, width));
    if (y === undefined) return;
    this.tags.push([x, y, width]);
    const tag = Canopy.svg("g", { class: this.look("tag", event) });
    tag.append(Canopy.svg("rect", { x, y, width, height: 14 }));
    tag.append(Canopy.svg("text", { x: x + 3, y: y + 11 }, text));
    this.choosable(tag, event);
    svg.append(tag);
  }
  isFree(x, y, width) {
    if (y < 0 || y + 14 > this.spectrum) return false;
    return this.tags.every(
      ([left, top, long]) =>
        x + width <= left || left + long <= x || y + 14 <= top || top + 14 <= y,
    );
  }
  short(text) {
    return text.length > 14 ? `${text.slice(0, 13)}…` : text;
  }
  choosable(element, item) {
    if (!this.items.includes(item)) return;
    element.classList.add("hit");
    element.addEventListener("click", (event) => {
      event.stopPropagation();
      this.onChoose(item);
    });
  }

  // ------------------------------------------------------------------------------------ scores
  drawStrip(svg, [label, values], top) {
    const { LEFT, STRIP } = Canopy.Stage;
    const floor = top + 30;
    const y = (score) => floor - 26 * score;
    const right = this.width - Canopy.Stage.RIGHT;
    const level = (at, kind) =>
      svg.append(Canopy.svg("line", { class: kind, x1: LEFT, x2: right, y1: at, y2: at }));
    const own = this.chosen && this.chosen.c === label ? " own" : "";
    const points = Array.from(values, (value, index) => {
      const time = this.clip.t0 + (index + 0.5) * this.clip.th;
      return `${this.x(time).toFixed(1)},${y(value / 255).toFixed(1)}`;
    });
    const group = Canopy.svg("g", { class: `strip${own}` });
    group.append(
      Canopy.svg("polygon", {
        points: `${LEFT},${floor} ${points.join(" ")} ${right},${floor}`, class: "area",
      }),
    );
    group.append(Canopy.svg("polyline", { points: points.join(" "), class: "trace" }));
    svg.append(group);
    level(floor, "base");
    level(y(this.data.thresholds[label]), "threshold");
    svg.append(Canopy.svg("text", { class: "scale end", x: LEFT - 6, y: floor }, "0"));
    svg.append(Canopy.svg("text", { class: "scale end", x: LEFT - 6, y: top + 12 }, "1"));
    const name = this.data.titles[label];
    svg.append(Canopy.svg("text", { class: `name${own}`, x: LEFT + 4, y: top + 12 }, name));
    const bars = Canopy.svg("g", { class: "strip-bars" });
    svg.append(bars);
    for (const [kind, c, on, off] of this.clip.ev) {
      if (c === label) this.drawBar(bars, { kind, c, on, off }, floor);
    }
    for (const item of this.items) if (item.c === label) this.drawBar(bars, item, floor);
    return top + STRIP;
  }
  drawBar(svg, event, floor) {
    const kind = Canopy.Stage.KINDS[event.kind];
    const left = this.x(event.on);
    const bar = Canopy.svg("rect", {
      class: this.look("bar", event), x: left, y: floor + 3 + 6 * kind.row,
      width: Math.max(this.x(event.off) - left, 2), height: 5,
    });
    bar.append(Canopy.svg("title", {}, kind.word));
    this.choosable(bar, event);
    svg.append(bar);
  }
  drawAxis(svg, top) {
    const length = this.clip.e - this.clip.s;
    const steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60];
    const room = Math.max(2, Math.floor(this.inner / 70));
    const step = steps.find((each) => length / each <= room) || 60;
    for (let n = Math.ceil(this.clip.s / step - 1e-9); n * step <= this.clip.e + 1e-9; n++) {
      const x = this.x(n * step);
      svg.append(Canopy.svg("line", { class: "tick", x1: x, x2: x, y1: top, y2: top + 4 }));
      const text = String(Number((n * step).toFixed(2)));
      svg.append(Canopy.svg("text", { class: "scale middle", x, y: top + 16 }, text));
    }
    const middle = this.x(this.clip.s + length / 2);
    svg.append(Canopy.svg("text", { class: "scale middle", x: middle, y: top + 31 }, "seconds"));
  }
};
