// The viewer: list, picture, sound and verdicts together.
(function () {
  const source = document.getElementById("viewer-data");
  if (!source) return;
  const by = (id) => document.getElementById(id);
  const root = by("viewer");
  const data = unpack(JSON.parse(source.textContent));
  const verdicts = new Canopy.Verdicts(data.key);
  const controls = ["label", "least", "kind", "verdict", "subset", "sort", "id"];
  let chosen = null;
  let visible = false;

  const player = new Canopy.Player(data.expansion, moved);
  const stage = new Canopy.Stage(by("stage"), data, (time) => player.seek(time), choose);
  const list = new Canopy.List(by("items"), data, verdicts, (item) => {
    choose(item);
    reveal();
  });

  // Rows of numbers -> objects; traces stay bytes.
  function unpack(packed) {
    const keys = ["clip", "c", "on", "off", "lo", "hi", "score", "flags", "bl", "bc", "bf"];
    packed.items = packed.items.map((values, n) => {
      const item = Object.fromEntries(keys.map((key, index) => [key, values[index]]));
      item.n = n;
      item.missed = (item.flags & 1) > 0;
      item.pseudo = (item.flags & 2) > 0;
      item.kind = item.missed ? 5 : 4;
      item.most = Math.max(0, item.bl ?? 0, item.bc ?? 0, item.bf ?? 0);
      item.row = {
        recording_id: packed.clips[item.clip].id, label: packed.labels[item.c],
        onset: item.on, offset: item.off, low_freq: item.lo, high_freq: item.hi,
      };
      return item;
    });
    for (const clip of packed.clips) {
      clip.items = [];
      clip.tr = clip.tr.map(([label, text]) => [label, Canopy.bytes(text)]);
    }
    for (const item of packed.items) packed.clips[item.clip].items.push(item);
    packed.empty = packed.clips.flatMap((clip, n) => (clip.items.length ? [] : [nothing(clip, n)]));
    return packed;
  }
  // A row for a clip in which there is nothing to judge, so that it can be looked at all the same.
  function nothing(clip, n) {
    return {
      clip: n, c: -1, on: clip.s, off: clip.e, score: 0, most: 0, bl: null, bc: null, bf: null,
      n: `clip${n}`, empty: true, row: null,
    };
  }

  // --------------------------------------------------------------------------------- choosing
  function choose(item) {
    chosen = item;
    list.choose(item);
    for (const button of root.querySelectorAll("[data-needs-item]")) {
      button.disabled = !item || Boolean(item.empty);
    }
    if (!item) return;
    const clip = data.clips[item.clip];
    const other = clip !== player.clip;
    player.load(clip);
    stage.show(clip, clip.items, item);
    player.seek(item.empty ? clip.s : item.on - 0.3);
    if (by("autoplay").checked) player.play(Math.min(item.off + 0.3, clip.e));
    if (other) preload(clip);
    describe(clip, item);
  }
  // On a phone the list lies below the picture: what is tapped there comes into view.
  function reveal() {
    const { top, bottom } = by("stage").getBoundingClientRect();
    if (bottom < 60 || top > innerHeight - 60) by("clip-title").scrollIntoView();
  }
  function preload(clip) {
    const next = list.beside(1);
    const following = next && data.clips[next.clip];
    if (following && following !== clip && following.pic) new Image().src = following.pic;
  }
  function describe(clip, item) {
    const part = clip.s > 0 ? `, from ${clip.s.toFixed(0)} s` : "";
    by("clip-title").textContent = clip.id;
    by("clip-about").textContent = `${clip.subset}${part}, ${(clip.e - clip.s).toFixed(1)} s`;
    if (item.empty) {
      by("chosen").textContent = "Nothing detected, and no label without a detection";
      by("apart").textContent = "Scores of the highest classes are below the picture.";
      pressed();
      return;
    }
    const share = (name, value) => (value === null ? "" : `, ${name} ${value.toFixed(2)}`);
    const kind = Canopy.Stage.KINDS[item.kind];
    by("chosen").textContent =
      `${kind.sign} ${kind.word}: ${data.titles[item.c]}, ${Canopy.seconds(item.on)} to ` +
      `${Canopy.seconds(item.off)} s, score ${item.score.toFixed(2)}`;
    const apart =
      share("labels", item.bl) + share("first cycle", item.bc) + share("folds", item.bf);
    by("apart").textContent = apart ? `Disagreement: ${apart.slice(2)}` : "Nothing to compare with";
    pressed();
  }
  function pressed() {
    const verdict = chosen && !chosen.empty ? verdicts.of(chosen.row) : "";
    for (const button of root.querySelectorAll("[data-verdict]")) {
      const own = button.dataset.verdict;
      if (own) button.setAttribute("aria-pressed", String(own === verdict));
    }
  }
  function go(step) {
    const item = list.beside(step);
    if (item && item !== chosen) choose(item);
  }

  // --------------------------------------------------------------------------------- verdicts
  function judge(verdict) {
    if (!chosen || chosen.empty) return;
    const kept = verdicts.set(chosen.row, verdict);
    // Named before the list changes: what is judged may be filtered away.
    const next = verdict && by("go-on").checked ? list.beside(1) : chosen;
    const said = verdict ? `marked ${verdict}` : "verdict taken back";
    const title = data.titles[chosen.c];
    refresh();
    if (next !== chosen) choose(next);
    else pressed();
    say(`${title} ${said}.` + (kept ? "" : " This browser keeps nothing: download the file."));
  }
  function refresh() {
    const settings = Object.fromEntries(controls.map((name) => [name, by(`by-${name}`).value]));
    settings.least = Number(settings.least);
    by("least-shown").textContent = settings.least.toFixed(2);
    list.filter(settings);
    const n = data.items.length;
    by("count").textContent =
      settings.kind === "empty"
        ? `${list.shown.length} of ${data.clips.length} recordings or parts`
        : `${list.shown.length} of ${n} shown`;
    const counts = ["right", "wrong", "unsure"].map((name) => `${verdicts.count(name)} ${name}`);
    by("progress").textContent = `Reviewed: ${counts.join(", ")}`;
    by("download").disabled = verdicts.count("right") + verdicts.count("wrong") === 0;
    by("download-unsure").disabled = verdicts.count("unsure") === 0;
    by("forget").disabled = verdicts.rows.size === 0;
  }
  function say(text) {
    by("said").textContent = text;
  }
  function download(name, text) {
    const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    Canopy.html("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    say(`${name} is downloaded.`);
  }
  async function load(file) {
    try {
      const n = verdicts.read(await file.text());
      const here = new Set(data.items.map((item) => verdicts.id(item.row)));
      const away = [...verdicts.rows.keys()].filter((id) => !here.has(id)).length;
      const rest = away ? ` ${away} of all verdicts are of nothing on this page; they stay.` : "";
      say(`${n} verdicts read from ${file.name}.${rest}`);
    } catch (error) {
      say(`${file.name}: ${error.message}`);
    }
    refresh();
    pressed();
  }

  // ------------------------------------------------------------------------------------ sound
  function moved() {
    const { clip, time } = player;
    if (!clip || !stage.cursor) return;
    stage.moveTo(time);
    by("play").textContent = player.playing ? "❚❚ Pause" : "▶ Play";
    by("play").disabled = player.silent;
    by("silence").hidden = !player.silent;
    const seek = by("seek");
    seek.max = (clip.e - clip.s).toFixed(2);
    seek.value = (time - clip.s).toFixed(2);
    const text = `${Canopy.seconds(time)} / ${Canopy.seconds(clip.e)} s`;
    seek.setAttribute("aria-valuetext", text);
    by("time").textContent = text;
  }

  // ----------------------------------------------------------------------------------- wiring
  const keys = {
    j: () => go(1), k: () => go(-1), " ": () => player.toggle(), r: () => judge("right"),
    w: () => judge("wrong"), u: () => judge("unsure"), c: () => judge(""),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !by("use-keys").checked) return;
    const inside = root.contains(event.target);
    if (!inside && !visible) return;
    const tag = event.target.tagName;
    const typed = event.target.type;
    if (tag === "SELECT" || tag === "TEXTAREA" || (tag === "INPUT" && typed === "search")) return;
    // Space presses what has the focus, where that can be pressed.
    const pressable = ["BUTTON", "SUMMARY", "A", "INPUT"].includes(tag);
    const act = keys[event.key.toLowerCase()];
    if (!act || (event.key === " " && pressable)) return;
    event.preventDefault();
    act();
  });
  by("items").addEventListener("keydown", (event) => {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8, End: 1e9, Home: -1e9 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    go(steps[event.key]);
  });
  for (const name of controls) by(`by-${name}`).addEventListener("input", refresh);
  for (const button of root.querySelectorAll("[data-verdict]")) {
    // A verdict that is pressed again is taken back.
    button.addEventListener("click", () => {
      judge(button.getAttribute("aria-pressed") === "true" ? "" : button.dataset.verdict);
    });
  }
  by("previous").addEventListener("click", () => go(-1));
  by("next").addEventListener("click", () => go(1));
  by("play").addEventListener("click", () => player.toggle());
  by("seek").addEventListener("input", (event) => {
    player.seek(player.clip.s + Number(event.target.value));
  });
  by("speed").addEventListener("input", (event) => player.speed(Number(event.target.value)));
  by("download").addEventListener("click", () => {
    download("events.csv", verdicts.csv("right", "wrong"));
  });
  by("download-unsure").addEventListener("click", () => {
    download("unsure.csv", verdicts.csv("unsure"));
  });
  by("load").addEventListener("change", (event) => {
    for (const file of event.target.files) load(file);
    event.target.value = "";
  });
  by("forget").addEventListener("click", () => {
    if (!confirm("Forget all verdicts that this browser keeps for these recordings?")) return;
    verdicts.clear();
    refresh();
    pressed();
    say("All verdicts are forgotten.");
  });
  for (const button of document.querySelectorAll("[data-show]")) {
    const [name, label, onset] = JSON.parse(button.dataset.show);
    const clip = data.clips.find((each) => each.id === name && each.s <= onset && onset < each.e);
    const near = clip && clip.items.find((each) => data.labels[each.c] === label && each.off > onset);
    button.disabled = !clip || !clip.items.length;
    button.addEventListener("click", () => {
      choose(near || clip.items[0]);
      root.scrollIntoView();
      by("items").focus({ preventScroll: true });
    });
  }
  new IntersectionObserver((entries) => {
    visible = entries[entries.length - 1].isIntersecting;
  }).observe(root);
  root.hidden = false;
  if (!Canopy.canKeep) by("not-kept").hidden = false;
  refresh();
  choose(list.shown[0] || data.empty[0] || null);
})();
