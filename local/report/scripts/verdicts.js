// Verdicts: kept in the browser, written to and read from the columns of events.csv.
Canopy.Verdicts = class {
  static COLUMNS = [
    "recording_id", "label", "onset", "offset", "low_freq", "high_freq", "polarity", "weight",
    "source",
  ];
  static POLARITY = { right: "1", wrong: "-1", unsure: "" };

  constructor(key) {
    this.key = key;
    this.rows = new Map();
    try {
      for (const row of JSON.parse(Canopy.kept(key) || "[]")) this.rows.set(this.id(row), row);
    } catch (error) {
      this.rows.clear(); // Not ours, or cut short: begin anew.
    }
  }
  // The same span in another report of the same recordings is the same item.
  id(row) {
    return [row.recording_id, row.label, row.onset.toFixed(3), row.offset.toFixed(3)].join("\n");
  }
  of(row) {
    const found = this.rows.get(this.id(row));
    return found ? found.verdict : "";
  }
  set(row, verdict) {
    if (verdict) this.rows.set(this.id(row), { ...row, verdict });
    else this.rows.delete(this.id(row));
    return this.save();
  }
  save() {
    return Canopy.keep(this.key, JSON.stringify([...this.rows.values()]));
  }
  clear() {
    this.rows.clear();
    return this.save();
  }
  count(verdict) {
    let n = 0;
    for (const row of this.rows.values()) n += row.verdict === verdict;
    return n;
  }

  // ------------------------------------------------------------------------------------- csv
  csv(...verdicts) {
    const number = (value) => (value === null ? "" : String(Number(value.toFixed(4))));
    const quote = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const rows = [...this.rows.values()].filter((row) => verdicts.includes(row.verdict));
    rows.sort((a, b) => (this.id(a) < this.id(b) ? -1 : 1));
    const lines = rows.map((row) =>
      [
        quote(row.recording_id), quote(row.label), number(row.onset), number(row.offset),
        number(row.low_freq), number(row.high_freq), Canopy.Verdicts.POLARITY[row.verdict], "1",
        row.verdict === "unsure" ? "review:unsure" : "review",
      ].join(","),
    );
    return [Canopy.Verdicts.COLUMNS.join(","), ...lines].join("\n") + "\n";
  }
  // Takes a downloaded file in; returns how many rows it held. Throws what a person can mend.
  read(text) {
    const [head, ...body] = Canopy.Verdicts.cells(text);
    const place = Object.fromEntries((head || []).map((name, index) => [name.trim(), index]));
    const missing = Canopy.Verdicts.COLUMNS.filter((name) => !(name in place));
    if (missing.length) throw new Error(`no column ${missing[0]}: choose a file from this page`);
    const rows = body.map((cells, index) => {
      const of = (name) => (cells[place[name]] || "").trim();
      const number = (name) => (of(name) === "" ? null : Number(of(name)));
      const verdict = { 1: "right", "-1": "wrong" }[number("polarity")] || "unsure";
      const row = {
        recording_id: of("recording_id"), label: of("label"), onset: number("onset"),
        offset: number("offset"), low_freq: number("low_freq"), high_freq: number("high_freq"),
        verdict,
      };
      const good = Number.isFinite(row.onset) && row.onset < row.offset && row.recording_id;
      if (row.onset === null || !good) throw new Error(`line ${index + 2} has no id or no span`);
      return row;
    });
    for (const row of rows) this.rows.set(this.id(row), row);
    this.save();
    return rows.length;
  }
  // Rows of cells of a csv with quoted cells, line ends of any kind and empty lines at the end.
  static cells(text) {
    const rows = [[]];
    const pattern = /(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n|\n|\r|$)/gy;
    for (let found; (found = pattern.exec(text.replace(/^\uFEFF/, "").trimEnd())); ) {
      rows[rows.length - 1].push(
        found[1] === undefined ? found[2] : found[1].replaceAll('""', '"'),
      );
      if (found[3] === "") break;
      if (found[3] !== ",") rows.push([]);
    }
    return rows;
  }
};
