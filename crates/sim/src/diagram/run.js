"use strict";
/* What happened: the trace's columns as typed arrays, and what follows from them: arrows, spans, and which event happens before which. */

/** The kinds of events; the names are those of columns.rs. */
const kindNumbers = (names) => Object.fromEntries(names.map((name, number) => [name, number]));

/** A list of spans of one lane: not overlapping, in order. */
class Spans {
  constructor() {
    this.from = []; this.to = []; this.begin = []; this.end = []; this.value = [];
    this.open = -1;
  }
  start(time, event, value) {
    this.open = this.from.length;
    this.from.push(time); this.to.push(Infinity); this.begin.push(event); this.end.push(-1); this.value.push(value);
  }
  stop(time, event, value) {
    if (this.open < 0) return;
    this.to[this.open] = time; this.end[this.open] = event;
    if (value !== undefined) this.value[this.open] = value;
    this.open = -1;
  }
  /** The first span that ends after a time. */
  after(time) {
    let low = 0, high = this.from.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.to[middle] <= time) low = middle + 1; else high = middle;
    }
    return low;
  }
}

class Run {
  constructor(data) {
    const columns = data.columns, n = columns.kind.length;
    Object.assign(this, { n, about: data.about, said: data.said, texts: data.texts, violation: data.violation });
    this.K = kindNumbers(data.kinds);
    this.kindNames = data.kinds;
    this.lanes = data.about.lanes;
    this.shards = data.about.shards;
    this.nodes = this.lanes.filter((lane) => lane[0] === "n").length;
    this.at = new Float64Array(n);
    for (let e = 0, time = 0; e < n; e++) this.at[e] = time += columns.dt[e];
    this.kind = Uint8Array.from(columns.kind);
    this.lane = Int16Array.from(columns.lane);
    this.peer = Int16Array.from(columns.peer);
    this.shard = Int16Array.from(columns.shard);
    this.message = Int32Array.from(columns.message);
    this.a = Float64Array.from(columns.a);
    this.b = Float64Array.from(columns.b);
    this.text = Int32Array.from(columns.text);
    this.end = n > 0 ? Math.max(this.at[n - 1], 1) : 1;
    this.marked = new Uint8Array(n);
    if (this.violation) {
      for (const e of this.violation.marks) this.marked[e] = 1;
      this.marked[this.violation.at] = 1;
    }
    this.findArrows();
    this.findSpans();
    this.findOrder();
  }

  /** One arrow per end of a message, in order of sending; a message without an end has one that leads nowhere. */
  findArrows() {
    const { K, kind, message, n } = this;
    const sends = [], ends = [];
    for (let e = 0; e < n; e++) {
      if (kind[e] === K.send) { sends[message[e]] = e; ends[message[e]] = []; }
      else if (message[e] >= 0) ends[message[e]].push(e);
    }
    this.sendOf = Int32Array.from(sends);
    this.endsOf = ends;
    const from = [], to = [], copy = [];
    sends.forEach((send, m) => {
      (ends[m].length ? ends[m] : [-1]).forEach((end, which) => { from.push(send); to.push(end); copy.push(which > 0 ? 1 : 0); });
    });
    this.arrowFrom = Int32Array.from(from);
    this.arrowTo = Int32Array.from(to);
    this.arrowCopy = Uint8Array.from(copy);
    // When the last arrow of each block arrives: so a window finds what is still under way when it begins.
    this.block = 256;
    this.blockEnd = new Float64Array(Math.ceil(from.length / this.block));
    from.forEach((send, arrow) => {
      const block = Math.floor(arrow / this.block), end = to[arrow] < 0 ? this.end : this.at[to[arrow]];
      if (end > this.blockEnd[block]) this.blockEnd[block] = end;
    });
  }

  /** Everything that lasts. */
  findSpans() {
    const { K, kind, at, lane, shard, n } = this;
    const per = (count) => Array.from({ length: count }, () => new Spans());
    const lanes = this.lanes.length;
    const spans = this.spans = {
      down: per(lanes), pause: per(lanes), cut: per(lanes), sync: per(lanes), flush: per(lanes), operation: per(lanes),
      role: this.lanes.map(() => per(this.shards.length)),
    };
    // Before its first start a node is down.
    for (let l = 0; l < this.nodes; l++) spans.down[l].start(0, -1, 0);
    for (let e = 0; e < n; e++) {
      const l = lane[e], time = at[e];
      switch (kind[e]) {
        case K.start: spans.down[l].stop(time, e); break;
        case K.crash:
          spans.down[l].start(time, e, 0);
          spans.pause[l].stop(time, e);
          spans.sync[l].stop(time, e, 1);
          spans.flush[l].stop(time, e, 1);
          spans.role[l].forEach((role) => role.stop(time, e));
          break;
        case K.pause: spans.pause[l].stop(time, e); spans.pause[l].start(time, e, 0); break;
        case K.resume: spans.pause[l].stop(time, e); break;
        case K.cut: spans.cut[l].stop(time, e); spans.cut[l].start(time, e, this.a[e]); break;
        case K.heal: case K.calm: spans.cut.forEach((cut) => cut.stop(time, e)); break;
        case K["sync-begin"]: spans.sync[l].start(time, e, 0); break;
        case K["sync-end"]: spans.sync[l].stop(time, e); break;
        case K["flush-begin"]: spans.flush[l].stop(time, e, 1); spans.flush[l].start(time, e, 0); break;
        case K["flush-end"]: spans.flush[l].stop(time, e); break;
        case K.role: {
          const role = spans.role[l][shard[e]];
          role.stop(time, e);
          role.start(time, e, { term: this.a[e], part: this.b[e] });
          break;
        }
        case K.ask: spans.operation[l].start(time, e, 4); break;
        case K.answer: spans.operation[l].stop(time, e, this.b[e]); break;
        case K["give-up"]: spans.operation[l].stop(time, e, 3); break;
      }
    }
  }

  /** Happens before: each event's predecessor on its lane, and the edges between lanes; all lead from a lower to a higher number. */
  findOrder() {
    const { K, kind, lane, peer, message, n } = this;
    const before = this.before = new Int32Array(n).fill(-1), next = this.next = new Int32Array(n).fill(-1);
    const latest = new Int32Array(this.lanes.length).fill(-1);
    const asked = this.lanes.map(() => []);
    const from = [], to = [];
    const edge = (one, other) => { if (one >= 0) { from.push(one); to.push(other); } };
    for (let e = 0; e < n; e++) {
      const l = lane[e], k = kind[e];
      // What was lost reached nobody: it is after its sending and before nothing.
      if (k === K.lose) { edge(this.sendOf[message[e]], e); continue; }
      if (k === K.deliver) edge(this.sendOf[message[e]], e);
      if (k === K.violation) {
        edge(e - 1, e);
        if (this.violation) this.violation.marks.forEach((mark) => { if (mark !== e - 1) edge(mark, e); });
      }
      if (l < 0) continue;
      before[e] = latest[l];
      if (latest[l] >= 0) next[latest[l]] = e;
      latest[l] = e;
      for (const question of asked[l].splice(0)) edge(question, e);
      if (k === K.ask || k === K.watch) asked[peer[e]].push(e);
      if (k === K.answer || k === K.tell) edge(latest[peer[e]], e);
    }
    this.into = rows(n, to, from);
    this.outOf = rows(n, from, to);
    this.lamport = new Int32Array(n);
    for (let e = 0; e < n; e++) {
      let time = before[e] >= 0 ? this.lamport[before[e]] : 0;
      for (let i = this.into.start[e]; i < this.into.start[e + 1]; i++) time = Math.max(time, this.lamport[this.into.list[i]]);
      this.lamport[e] = time + 1;
    }
    this.cone = { event: -1, side: new Uint8Array(n), past: 0, future: 0 };
  }

  /** Marks what happens before an event (1) and after it (2). */
  coneOf(event) {
    const cone = this.cone;
    if (cone.event === event) return cone;
    cone.event = event;
    cone.side.fill(0);
    if (event < 0) return cone;
    const walk = (side, along, edges) => {
      const stack = [event];
      let count = 0;
      const visit = (e) => { if (e >= 0 && cone.side[e] === 0 && e !== event) { cone.side[e] = side; count++; stack.push(e); } };
      while (stack.length) {
        const e = stack.pop();
        visit(along[e]);
        for (let i = edges.start[e]; i < edges.start[e + 1]; i++) visit(edges.list[i]);
      }
      return count;
    };
    cone.past = walk(1, this.before, this.into);
    cone.future = walk(2, this.next, this.outOf);
    cone.side[event] = 3;
    return cone;
  }

  /** The first event at or after a time. */
  firstAt(time) {
    let low = 0, high = this.n;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.at[middle] < time) low = middle + 1; else high = middle;
    }
    return low;
  }

  textOf(e) {
    return this.text[e] >= 0 ? this.texts[this.text[e]] : this.texts[this.text[this.sendOf[this.message[e]]]];
  }

  /** What kind of message an event belongs to, or -1. */
  saidOf(e) {
    return this.message[e] >= 0 ? this.a[this.sendOf[this.message[e]]] : -1;
  }

  laneName(l) {
    const name = this.lanes[l];
    return { n: "node ", c: "client ", w: "watch " }[name[0]] + name;
  }

  /** Where an event happens, as the lines of a replay say it. */
  placeOf(e) {
    const { K, kind, lanes } = this, l = this.lane[e], p = this.peer[e];
    if (l < 0) return "";
    if (p < 0) return lanes[l];
    switch (kind[e]) {
      case K.send: case K.ask: case K.watch: return `${lanes[l]} → ${lanes[p]}`;
      case K.lose: return `${lanes[p]} ✕ ${lanes[l]}`;
      default: return `${lanes[p]} → ${lanes[l]}`;
    }
  }

  ending(e) {
    const { K, kind } = this;
    if (kind[e] === K.deliver) return " (delivered)";
    if (kind[e] === K.lose) return [" (dropped)", " (lost in a cut)", " (found nobody)"][this.a[e]];
    return "";
  }
}

/** Edges by their first end: those of e are list[start[e] .. start[e + 1]]. */
function rows(n, keys, values) {
  const start = new Int32Array(n + 1), list = new Int32Array(keys.length);
  for (const key of keys) start[key + 1]++;
  for (let e = 0; e < n; e++) start[e + 1] += start[e];
  const fill = start.slice();
  keys.forEach((key, i) => { list[fill[key]++] = values[i]; });
  return { start, list };
}

