/* What can be done with it: controls, keys, the list of the last events, and the self-test. */

const element = (id) => document.getElementById(id);
const make = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

const run = new Run(JSON.parse(element("data").textContent));

/** What is hidden. Marked events are always shown. */
const filter = {
  shard: -1,
  node: -1,
  said: new Uint8Array(run.said.length).fill(1),
  groups: { disk: true, commit: true, client: true, watch: true, fault: true },
  groupOf: groupsOfKinds(run.kindNames),
  shows(e) {
    const said = run.saidOf(e);
    if (said >= 0 ? !this.said[said] : !(this.groups[this.groupOf[run.kind[e]]] ?? true)) return false;
    if (this.shard >= 0 && run.shard[e] >= 0 && run.shard[e] !== this.shard) return false;
    return this.node < 0 || run.lane[e] === this.node || run.peer[e] === this.node || run.lane[e] < 0;
  },
};

function groupsOfKinds(names) {
  const groups = {
    disk: ["sync-begin", "sync-end", "flush-begin", "flush-end"], commit: ["commit", "apply"], client: ["ask", "answer", "give-up"],
    watch: ["watch", "tell"], fault: ["note", "start", "crash", "pause", "resume", "clock-jump", "cut", "heal", "calm"],
  };
  return names.map((name) => Object.keys(groups).find((group) => groups[group].includes(name)));
}

const picture = new Picture(run, element("picture"), filter);
const map = element("map");

// ---- what the run was

function introduce() {
  element("title").textContent = run.about.title;
  element("command").textContent = run.about.command;
  element("replay").hidden = !run.about.command;
  element("story").append(...run.about.story.map((sentence) => make("li", { textContent: sentence })));
  const { violation } = run, verdict = element("verdict");
  verdict.classList.toggle("fine", !violation);
  // What no command makes again was recorded by real processes: nobody checked it.
  const checked = run.about.command !== "";
  element("rule").textContent = violation ? `Broken rule: ${violation.rule}` : checked ? "No rule was broken" : "Recorded by real processes";
  element("explanation").textContent = violation ? violation.explanation
    : checked ? "Every check held from the first event to the last." : "This is what happened. Nothing was checked.";
  element("detail").textContent = violation ? `at ${seconds(run.at[violation.at])}: ${violation.detail}` : "";
  element("to-violation").hidden = !violation;
  element("list-title").textContent = violation ? "The last events before the violation, and those that it speaks of" : "The last events";
  const what = violation ? `It ends with the broken rule "${violation.rule}" at ${seconds(run.at[violation.at])}.` : checked ? "No rule was broken." : "Nothing was checked.";
  element("picture").setAttribute("aria-label", `Space-time diagram, ${run.about.title}: ${run.n} events on ${run.lanes.length} lanes. ${what} ` +
    "Step through the events with the left and right arrow keys.");
}

/** The legend is the filter. */
function buildLegend() {
  const legend = element("legend");
  const toggle = (name, colour, block, set) => {
    const mark = make("i", { className: block ? "block" : "" });
    mark.style.setProperty("--c", `var(--${colour})`);
    const button = make("button", { type: "button" }, mark, name);
    button.setAttribute("aria-pressed", "true");
    button.onclick = () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      set(on);
      changed();
    };
    return button;
  };
  legend.append(make("span", { className: "group", textContent: "Messages" }));
  run.said.forEach((name, kind) => legend.append(toggle(name, colourOfSaid(name), false, (on) => { filter.said[kind] = on ? 1 : 0; })));
  legend.append(make("span", { className: "group", textContent: "On the lanes" }));
  const groups = [["commits and applies", "commit", "commit"], ["disk", "disk", "disk"], ["faults", "alarm", "fault"], ["watches", "watch", "watch"],
    ["operations", "done", "client"]];
  for (const [name, colour, group] of groups) legend.append(toggle(name, colour, true, (on) => { filter.groups[group] = on; }));
  legend.append(make("span", { className: "group", textContent: "Answers" }));
  for (const [outcome, name] of [...OUTCOMES.slice(0, 4).map((name) => [name, name]), [OUTCOMES[4], "none yet"]]) {
    const mark = make("i", { className: "block" });
    mark.style.setProperty("--c", `var(--${outcome})`);
    legend.append(make("span", { className: "answer" }, mark, name));
  }
}

function buildSelects() {
  const option = (text, value) => make("option", { textContent: text, value: String(value) });
  element("shard").append(option("all", -1), ...run.shards.map((shard, s) => option(`s${shard}`, s)));
  element("node").append(option("all", -1), ...run.lanes.slice(0, run.nodes).map((node, l) => option(node, l)));
  element("shard").onchange = (event) => { filter.shard = Number(event.target.value); changed(); };
  element("node").onchange = (event) => { filter.node = Number(event.target.value); changed(); };
}

function changed() {
  picture.layOut();
  picture.ask();
  drawMap();
}

// ---- choosing

function choose(e, reveal = true) {
  picture.chosen = e;
  picture.hover = -1;
  if (e >= 0 && reveal) {
    const x = picture.x(run.at[e]), margin = picture.plot * .1;
    if (x < GUTTER + margin || x > picture.width - margin) {
      const span = picture.to - picture.from;
      picture.show(run.at[e] - span / 2, run.at[e] + span / 2);
    }
  }
  describe(e);
  element("live").textContent = e < 0 ? "" : `${seconds(run.at[e])} ${run.placeOf(e)} ${run.textOf(e)}${run.ending(e)}`;
  document.querySelectorAll("#list button").forEach((button) => button.classList.toggle("chosen", Number(button.value) === e));
  picture.ask();
}

/** The panel beside the picture. */
function describe(e) {
  const panel = element("event");
  if (e < 0) { panel.replaceChildren(make("p", { className: "quiet", textContent: "Point at anything, or step with the arrow keys. What it depends on turns blue, what depends on it orange." })); return; }
  const cone = run.coneOf(e), facts = make("dl");
  const fact = (name, value, className = "") => facts.append(make("dt", { textContent: name }), make("dd", { textContent: value, className }));
  fact("time", seconds(run.at[e]));
  if (run.lane[e] >= 0) fact("where", run.placeOf(e));
  if (run.shard[e] >= 0) fact("shard", `s${run.shards[run.shard[e]]}`);
  if (run.message[e] >= 0) {
    const send = run.sendOf[run.message[e]], ends = run.endsOf[run.message[e]];
    if (e !== send) fact("sent", `${seconds(run.at[send])}, ${seconds(run.at[e] - run.at[send])} before`);
    for (const end of ends) if (end !== e) fact(["delivered", "dropped", "lost in a cut", "found nobody"][run.kind[end] === run.K.deliver ? 0 : 1 + run.a[end]], seconds(run.at[end]));
    if (!ends.length) fact("end", "still on its way");
    if (ends.length > 1) fact("copies", String(ends.length));
  }
  fact("Lamport time", String(run.lamport[e]));
  fact("depends on", `${cone.past} events`, "past");
  fact("leads to", `${cone.future} events`, "future");
  const parts = [make("span", { className: "what", textContent: run.textOf(e) + run.ending(e) }), facts];
  if (run.marked[e] && run.violation.at !== e) parts.push(make("p", { className: "alarm", textContent: "The broken rule speaks of this event." }));
  if (run.violation?.at === e) parts.push(make("p", { textContent: run.violation.explanation }));
  panel.replaceChildren(...parts);
}

/** The next event in a direction that is shown; on the same lane, if asked for. */
function step(direction, sameLane) {
  let e = picture.chosen;
  const lane = e >= 0 ? run.lane[e] : -1;
  if (e < 0) e = direction > 0 ? run.firstAt(picture.from) - 1 : run.firstAt(picture.to);
  for (e += direction; e >= 0 && e < run.n; e += direction) {
    if (sameLane && lane >= 0 && run.lane[e] !== lane) continue;
    if (filter.shows(e) || run.marked[e]) return choose(e);
  }
}

function follow() {
  const e = picture.chosen;
  if (e < 0 || run.message[e] < 0) return;
  const send = run.sendOf[run.message[e]], ends = run.endsOf[run.message[e]];
  const there = e === send ? ends[0] : ends[ends.indexOf(e) + 1] ?? send;
  if (there !== undefined) choose(there);
}

function fit() { picture.show(-run.end * .01, run.end * 1.01); }

/** The window before the violation in which there is something to see, but not too much. */
function toViolation() {
  const { violation } = run;
  if (!violation) return fit();
  const to = run.at[violation.at];
  let left = violation.at;
  for (let count = 0; left > 0 && count < 260; left--) {
    if (filter.shows(left)) count++;
    // A long silence before the events of interest would press them into a corner.
    const seen = to - run.at[left], silence = run.at[left] - run.at[left - 1];
    if (count > 30 && silence > 3 * Math.max(seen, 1000)) break;
  }
  const span = Math.max((to - run.at[left]) * 1.08, 200);
  picture.show(to - span, to + span * .06);
}

// ---- searching

function search(text) {
  const wanted = text.trim().toLowerCase();
  picture.found = null;
  if (wanted) {
    const texts = run.texts.map((known) => known.toLowerCase().includes(wanted));
    picture.found = new Set();
    for (let e = 0; e < run.n; e++) if (run.text[e] >= 0 && texts[run.text[e]]) picture.found.add(e);
  }
  element("found").textContent = wanted ? `${picture.found.size} found` : "";
  picture.ask();
}

function nextFound() {
  if (!picture.found?.size) return;
  const all = [...picture.found];
  choose(all.find((e) => e > picture.chosen) ?? all[0]);
}

// ---- the whole run on top

const MAP_HEIGHT = 40, mapBase = make("canvas");
const mapX = (time) => GUTTER + time / run.end * (map.clientWidth - GUTTER - 4) + 1;

function drawMap() {
  const ratio = window.devicePixelRatio || 1, width = map.clientWidth, height = MAP_HEIGHT, pen = mapBase.getContext("2d");
  map.width = mapBase.width = width * ratio; map.height = mapBase.height = height * ratio;
  pen.scale(ratio, ratio);
  const counts = new Float64Array(width), x = mapX;
  for (let e = 0; e < run.n; e++) if (filter.shows(e)) counts[Math.min(width - 1, Math.floor(x(run.at[e])))]++;
  const most = Math.log1p(counts.reduce((a, b) => Math.max(a, b), 1));
  pen.fillStyle = picture.colours.append;
  pen.globalAlpha = .5;
  counts.forEach((count, column) => { const tall = Math.log1p(count) / most * (height - 12); if (count) pen.fillRect(column, height - tall, 1, tall); });
  pen.globalAlpha = 1;
  for (let e = 0; e < run.n; e++) {
    const k = run.kind[e], K = run.K;
    const colour = k === K.crash ? "alarm" : k === K.cut || k === K.pause ? "refused" : k === K.calm ? "commit" : run.marked[e] ? "alarm" : null;
    if (!colour) continue;
    pen.fillStyle = picture.colours[colour];
    pen.fillRect(x(run.at[e]) - 1, 2, 2, k === K.calm ? height : 7);
  }
  if (run.violation) { pen.fillStyle = picture.colours.alarm; pen.fillRect(x(run.at[run.violation.at]) - 1, 0, 2, height); }
  pen.fillStyle = picture.colours.quiet;
  pen.font = "600 11px system-ui, sans-serif";
  pen.fillText("whole run", 8, 24);
  drawMapWindow();
}

/** What changes with each step: the frame around what the picture shows. */
function drawMapWindow() {
  const ratio = window.devicePixelRatio || 1, width = map.clientWidth, height = MAP_HEIGHT, pen = map.getContext("2d");
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.clearRect(0, 0, map.width, map.height);
  pen.drawImage(mapBase, 0, 0);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  const left = Math.max(mapX(Math.max(picture.from, 0)), GUTTER), right = Math.min(mapX(Math.min(picture.to, run.end)), width);
  pen.fillStyle = pen.strokeStyle = picture.colours.text;
  pen.globalAlpha = .1;
  pen.fillRect(left, 0, Math.max(right - left, 2), height);
  pen.globalAlpha = .8;
  pen.strokeRect(left + .5, .5, Math.max(right - left - 1, 2), height - 1);
}

function showWindow() {
  const { all, stride } = picture.arrows, many = stride > 1 ? `, 1 of ${stride} drawn` : "";
  const span = picture.to - picture.from;
  element("window").textContent = `${seconds(Math.max(picture.from, 0))} + ${seconds(span, span > 1e5 ? 1e4 : 1)} · ${all} messages${many}`;
}

// ---- hands

function listen() {
  const canvas = element("picture"), stage = element("stage"), tip = element("tip");
  let drag = null;
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) picture.move(event.deltaX);
    else picture.zoom(Math.exp(event.deltaY * .0016), event.offsetX);
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => { drag = { x: event.clientX, moved: false }; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => {
    if (drag) {
      const by = drag.x - event.clientX;
      if (Math.abs(by) > 3 || drag.moved) { drag.moved = true; canvas.classList.add("dragged"); tip.hidden = true; picture.move(by); drag.x = event.clientX; }
      return;
    }
    const e = picture.pick(event.offsetX, event.offsetY);
    tip.hidden = e < 0;
    if (e >= 0) {
      tip.replaceChildren(make("b", { textContent: `${seconds(run.at[e])} ${run.placeOf(e)} ` }), run.textOf(e) + run.ending(e));
      const right = event.offsetX > picture.width / 2;
      tip.style.left = right ? "" : `${event.offsetX + 14}px`;
      tip.style.right = right ? `${stage.clientWidth - event.offsetX + 14}px` : "";
      tip.style.top = `${event.offsetY + 14}px`;
    }
    if (e !== picture.hover) { picture.hover = e; describe(e >= 0 ? e : picture.chosen); picture.ask(); }
  });
  canvas.addEventListener("pointerup", (event) => {
    if (drag && !drag.moved) choose(picture.pick(event.offsetX, event.offsetY), false);
    drag = null;
    canvas.classList.remove("dragged");
  });
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; if (picture.hover >= 0) { picture.hover = -1; describe(picture.chosen); picture.ask(); } });
  map.addEventListener("pointerdown", (event) => { map.setPointerCapture(event.pointerId); map.onpointermove = jump; jump(event); });
  map.addEventListener("pointerup", () => { map.onpointermove = null; });
  const jump = (event) => {
    const time = (event.offsetX - GUTTER) / (map.clientWidth - GUTTER) * run.end, half = (picture.to - picture.from) / 2;
    picture.show(time - half, time + half);
  };
  const keys = {
    ArrowRight: (event) => step(1, event.shiftKey), ArrowLeft: (event) => step(-1, event.shiftKey), f: follow, "+": () => picture.zoom(.6), "=": () => picture.zoom(.6),
    "-": () => picture.zoom(1 / .6), a: () => picture.move(-picture.plot * .2), d: () => picture.move(picture.plot * .2), 0: fit, v: toViolation,
    Home: () => choose(0), End: () => choose(run.n - 1), "/": () => element("search").focus(), n: nextFound, Escape: () => choose(-1),
  };
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (typing && event.key === "Escape") event.target.blur();
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = keys[event.key] ?? keys[event.key.toLowerCase()];
    if (key) { event.preventDefault(); key(event); }
  });
  element("search").addEventListener("input", (event) => search(event.target.value));
  element("search").addEventListener("keydown", (event) => { if (event.key === "Enter") nextFound(); });
  element("fit").onclick = fit;
  element("to-violation").onclick = toViolation;
  element("zoom-in").onclick = () => picture.zoom(.6);
  element("zoom-out").onclick = () => picture.zoom(1 / .6);
  element("copy").onclick = () => navigator.clipboard?.writeText(run.about.command);
  window.addEventListener("resize", changed);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
  picture.drawn = () => { drawMapWindow(); showWindow(); };
}

/** The same in words: for those who cannot see the picture, and for reports. */
function buildList() {
  const last = run.violation ? run.violation.at : run.n - 1, latest = [];
  for (let e = last; e >= 0 && latest.length < 24; e--) latest.push(e);
  const marks = run.violation ? run.violation.marks.filter((e) => e < latest[latest.length - 1]).slice(-12) : [];
  element("list").append(...[...marks, ...latest.reverse()].map((e) => {
    const time = make("span", { className: "quiet", textContent: seconds(run.at[e]) }), place = make("span", { textContent: run.placeOf(e) });
    const button = make("button", { type: "button", value: String(e) }, time, place, make("span", { textContent: run.textOf(e) + run.ending(e) }));
    if (run.marked[e]) button.className = "marked";
    button.onclick = () => { choose(e); element("picture").focus({ preventScroll: true }); };
    return make("li", {}, button);
  }));
}

/** With #selftest the page measures itself and says so in its title and in an element of that name. */
function selfTest() {
  const times = [], first = picture.cost;
  const time = (work) => { const began = performance.now(); work(); return performance.now() - began; };
  for (let span = run.end * 1.02; span > run.end / 5000; span /= 1.5) {
    picture.show(run.end / 2 - span / 2, run.end / 2 + span / 2);
    picture.draw();
    times.push(picture.cost);
  }
  const whole = time(() => { fit(); picture.draw(); });
  const cone = time(() => { run.coneOf(-1); run.coneOf(Math.floor(run.n / 2)); });
  times.sort((one, other) => one - other);
  // Everything that keys and controls reach, once each.
  const checks = {
    ordered: Array.from(run.into.start.subarray(1)).every((to, e) => run.into.list.subarray(run.into.start[e], to).every((from) => from < e && run.lamport[from] < run.lamport[e])),
    steps: (choose(0), step(1), picture.chosen > 0),
    follows: (choose(run.sendOf[0]), follow(), run.sendOf.length === 0 || picture.chosen !== run.sendOf[0] || run.endsOf[0].length === 0),
    picks: (choose(Math.floor(run.n / 2)), picture.draw(), picture.pick(picture.x(run.at[picture.chosen]), picture.y(picture.chosen)) >= 0),
    finds: (search("commit"), nextFound(), picture.found.size === 0 || picture.found.has(picture.chosen)),
    filters: (filter.node = 0, filter.shard = 0, changed(), picture.draw(), filter.node = filter.shard = -1, search(""), changed(), true),
  };
  choose(-1, false);
  picture.draw();
  const pixels = picture.pen.getImageData(0, 0, picture.canvas.width, picture.canvas.height).data, colours = new Set();
  for (let i = 0; i < pixels.length; i += 4 * 97) colours.add(pixels[i] << 16 | pixels[i + 1] << 8 | pixels[i + 2]);
  const result = { events: run.n, messages: run.sendOf.length, load: loaded, first, whole, median: times[times.length >> 1], worst: times[times.length - 1], cone, colours: colours.size };
  for (const name of Object.keys(result)) result[name] = Math.round(result[name] * 10) / 10;
  result.failed = Object.keys(checks).filter((name) => !checks[name]);
  document.body.append(make("pre", { id: "selftest", textContent: JSON.stringify(result) }));
  document.title = `self-test: ${run.n} events, whole run ${result.whole} ms, worst ${result.worst} ms`;
  toViolation();
}

introduce();
buildLegend();
buildSelects();
buildList();
listen();
changed();
toViolation();
const loaded = performance.now();
const linked = location.hash.match(/^#event-(\d+)$/);
if (linked && Number(linked[1]) < run.n) {
  picture.show(run.at[linked[1]] - 2e4, run.at[linked[1]] + 2e4);
  choose(Number(linked[1]));
}
if (location.hash === "#selftest") { fit(); picture.draw(); selfTest(); }
