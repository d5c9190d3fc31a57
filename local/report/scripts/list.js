// The list of items: filtered and sorted, with only the rows in view in the document.
Canopy.List = class {
  static ROW = 52;
  static SORTS = {
    score: (a, b) => b.score - a.score,
    "score-low": (a, b) => a.score - b.score,
    disagreement: (a, b) => b.most - a.most,
    label: (a, b) => (b.bl ?? -1) - (a.bl ?? -1),
    cycle: (a, b) => (b.bc ?? -1) - (a.bc ?? -1),
    fold: (a, b) => (b.bf ?? -1) - (a.bf ?? -1),
    time: (a, b) => a.n - b.n,
    class: (a, b) => a.c - b.c || b.score - a.score,
  };
  static KEEPS = {
    any: () => true,
    detected: (item) => !item.missed,
    missed: (item) => item.missed,
    pseudo: (item) => item.pseudo,
    contradicts: (item) => item.bl > 0,
    agrees: (item) => item.bl === 0,
    unknown: (item) => item.bl === null,
    cycles: (item) => item.bc >= 0.25,
    folds: (item) => item.bf >= 0.25,
    empty: () => true,
  };

  constructor(host, data, verdicts, onChoose) {
    this.host = host;
    this.data = data;
    this.verdicts = verdicts;
    this.onChoose = onChoose;
    this.shown = [];
    this.chosen = null;
    this.sizer = Canopy.html("div", { class: "sizer", role: "presentation" });
    host.append(this.sizer);
    host.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(host);
    host.addEventListener("click", (event) => {
      const row = event.target.closest("[data-n]");
      if (row) onChoose(this.shown.find((item) => String(item.n) === row.dataset.n));
    });
  }
  // settings: label, least score, kind, verdict, subset ("" for all), part of an id, sort
  filter(settings) {
    const keep = Canopy.List.KEEPS[settings.kind];
    const part = settings.id.trim().toLowerCase();
    const named = this.data.clips.map((clip) => clip.id.toLowerCase().includes(part));
    const rows = settings.kind === "empty" ? this.data.empty : this.data.items;
    this.shown = rows.filter(
      (item) =>
        named[item.clip] &&
        (item.empty ||
          ((settings.label === "" || item.c === Number(settings.label)) &&
            item.score >= settings.least &&
            this.hasVerdict(item, settings.verdict))) &&
        (settings.subset === "" || this.data.clips[item.clip].subset === settings.subset) &&
        keep(item),
    );
    const by = Canopy.List.SORTS[settings.sort];
    if (settings.kind !== "empty") this.shown.sort((a, b) => by(a, b) || a.n - b.n);
    this.sizer.style.height = `${this.shown.length * Canopy.List.ROW}px`;
    this.draw();
  }
  hasVerdict(item, wanted) {
    const verdict = this.verdicts.of(item.row);
    if (wanted === "none") return verdict === "";
    return wanted === "" || verdict === wanted;
  }
  choose(item) {
    this.chosen = item;
    const index = this.shown.indexOf(item);
    if (index >= 0) {
      const top = index * Canopy.List.ROW;
      const { scrollTop, clientHeight } = this.host;
      if (top < scrollTop) this.host.scrollTop = top;
      const bottom = top + Canopy.List.ROW;
      if (bottom > scrollTop + clientHeight) this.host.scrollTop = bottom - clientHeight;
    }
    this.draw();
  }
  // The item `step` places from the chosen one; from the first one where that is filtered away.
  beside(step) {
    const index = this.shown.indexOf(this.chosen);
    if (index < 0) return this.shown[0] || null;
    return this.shown[Math.min(Math.max(index + step, 0), this.shown.length - 1)];
  }
  draw() {
    const first = Math.max(0, Math.floor(this.host.scrollTop / Canopy.List.ROW) - 4);
    const room = Math.ceil(this.host.clientHeight / Canopy.List.ROW) + 8;
    const rows = this.shown.slice(first, first + room);
    this.sizer.replaceChildren(...rows.map((item, index) => this.row(item, first + index)));
    const id = this.chosen && rows.includes(this.chosen) ? `item-${this.chosen.n}` : "";
    if (id) this.host.setAttribute("aria-activedescendant", id);
    else this.host.removeAttribute("aria-activedescendant");
  }
  row(item, index) {
    const { html } = Canopy;
    const clip = this.data.clips[item.clip];
    const verdict = item.empty ? "" : this.verdicts.of(item.row);
    const row = html("div", {
      class: "item", role: "option", id: `item-${item.n}`, "data-n": item.n,
      "aria-selected": item === this.chosen, "aria-setsize": this.shown.length,
      "aria-posinset": index + 1, style: `top:${index * Canopy.List.ROW}px`,
    });
    const sign = { right: "✓", wrong: "✕", unsure: "?" }[verdict] || "";
    const mark = html("span", { class: `mark ${verdict}`, "aria-hidden": "true" }, sign);
    const text = html("span", { class: "what" });
    text.append(html("b", {}, item.empty ? "nothing detected" : this.data.titles[item.c]));
    const span = `${Canopy.seconds(item.on)}–${Canopy.seconds(item.off)} s`;
    text.append(html("small", {}, `${clip.id} · ${span}`));
    if (verdict) text.append(html("span", { class: "spoken" }, `marked ${verdict}`));
    const side = html("span", { class: "value" });
    if (!item.empty) side.append(html("span", { class: "score" }, item.score.toFixed(2)));
    const flag = item.empty ? "" : this.flag(item);
    if (flag) side.append(html("small", { class: "flag" }, flag));
    row.append(mark, text, side);
    return row;
  }
  flag(item) {
    if (item.missed) return "◇ missed";
    if (item.bl > 0) return "≠ label";
    if (item.bf >= 0.25) return "folds apart";
    if (item.bc >= 0.25) return "cycles apart";
    return item.pseudo ? "▲ pseudo" : "";
  }
};
