/* How it is drawn. Only what lies in the window is looked at, and where more arrows lie in it than can be told apart, every k-th is drawn. */

const GUTTER = 80, AXIS = 40, NODE_HEIGHT = 88, CLIENT_HEIGHT = 22, ARROWS_MAX = 4000, POINTS_MAX = 3000;

/** A message's kind decides its colour. What Paxos asks two majorities for has the colours of what Raft asks them for. */
function colourOfSaid(kind) {
  if (/^Append|^accept/.test(kind)) return "append";
  if (/Vote|TimeoutNow|TransferLeader|^prepare|^promise/.test(kind)) return "vote";
  if (/^Heartbeat|StateHash/.test(kind)) return "beat";
  if (/^Snapshot|Chunk|TransferGone/.test(kind)) return "snapshot";
  if (/^Forward|^Lease|^ReadIndex/.test(kind)) return "forward";
  return "other";
}

const OUTCOMES = ["done", "refused", "unavailable", "unknown", "watch"];

class Picture {
  constructor(run, canvas, filter) {
    Object.assign(this, { run, canvas, filter, pen: canvas.getContext("2d"), from: 0, scale: 1, hover: -1, chosen: -1, found: null });
    this.colours = {};
    this.asked = false;
    this.saidColour = run.said.map(colourOfSaid);
    this.layOut();
  }

  /** Colours come from the style sheet, which knows whether it is dark. */
  readColours() {
    const style = getComputedStyle(document.documentElement);
    for (const name of ["back", "lane", "lane-other", "line", "text", "quiet", "alarm", "found", "append", "vote", "beat", "snapshot", "forward",
      "other", "commit", "apply", "disk", "flush", "past", "future", "done", "refused", "unavailable", "unknown", "watch"]) {
      this.colours[name] = style.getPropertyValue(`--${name}`).trim();
    }
    const percent = (name) => style.getPropertyValue(`--${name}`).trim();
    const hue = (term) => (term * 137.5 + 200) % 360;
    this.leaderColour = (term) => `hsl(${hue(term)} 45% ${percent("leader-light")})`;
    this.followerColour = (term) => `hsl(${hue(term)} ${percent("follower-tone")} ${percent("follower-light")})`;
    this.stripes = this.pattern(this.colours.vote, 3);
    this.hatch = this.pattern(this.colours.quiet, 1);
  }

  pattern(colour, width) {
    const tile = document.createElement("canvas");
    tile.width = tile.height = 8;
    const pen = tile.getContext("2d");
    pen.strokeStyle = colour;
    pen.globalAlpha = .55;
    pen.lineWidth = width;
    pen.beginPath();
    for (const x of [-8, 0, 8]) { pen.moveTo(x, 8); pen.lineTo(x + 8, 0); }
    pen.stroke();
    return this.pen.createPattern(tile, "repeat");
  }

  /** Where each lane lies. Hidden lanes have no height. */
  layOut() {
    const { run, filter } = this;
    let y = AXIS;
    this.tops = []; this.heights = []; this.middles = [];
    run.lanes.forEach((name, l) => {
      const isNode = l < run.nodes, shown = !isNode || filter.node < 0 || filter.node === l;
      if (l === run.nodes) y += 6;
      const height = isNode ? (shown ? NODE_HEIGHT : CLIENT_HEIGHT) : CLIENT_HEIGHT;
      this.tops.push(y);
      this.heights.push(height);
      this.middles.push(y + (height === NODE_HEIGHT ? 40 : height / 2));
      y += height;
    });
    this.height = y + 6;
    const ratio = window.devicePixelRatio || 1, width = this.canvas.parentElement.clientWidth;
    this.canvas.style.height = `${this.height}px`;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    this.width = width;
    this.ratio = ratio;
    this.readColours();
  }

  get plot() { return this.width - GUTTER; }
  get to() { return this.from + this.plot / this.scale; }
  x(time) { return GUTTER + (time - this.from) * this.scale; }
  time(x) { return this.from + (x - GUTTER) / this.scale; }

  show(from, to) {
    const { run } = this, least = 20;
    const span = Math.min(Math.max(to - from, least), run.end * 1.04);
    this.scale = this.plot / span;
    this.from = Math.min(Math.max(from, -run.end * .02), run.end * 1.02 - span);
    this.ask();
  }

  zoom(factor, x = GUTTER + this.plot / 2) {
    const time = this.time(x), span = (this.to - this.from) * factor, part = (x - GUTTER) / this.plot;
    this.show(time - span * part, time + span * (1 - part));
  }

  move(pixels) {
    const shift = pixels / this.scale;
    this.show(this.from + shift, this.to + shift);
  }

  /** Draws before the next frame, once. */
  ask() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => { this.asked = false; this.draw(); });
  }

  shown(e) { return this.filter.shows(e); }

  /** Where in its lane an event is seen. */
  y(e) {
    const { run } = this, l = run.lane[e], K = run.K;
    if (l < 0) return AXIS;
    if (this.heights[l] < NODE_HEIGHT) return this.middles[l];
    switch (run.kind[e]) {
      case K["sync-begin"]: case K["sync-end"]: return this.tops[l] + 67;
      case K["flush-begin"]: case K["flush-end"]: return this.tops[l] + 77;
      case K.start: case K.crash: case K["clock-jump"]: case K.note: return this.tops[l] + 9;
      case K.commit: case K.apply: case K.install: return this.tops[l] + 15;
      case K.role: return this.bandTop(l, run.shard[e]) + this.bandHeight / 2;
      default: return this.middles[l];
    }
  }

  get bands() { return this.filter.shard < 0 ? this.run.shards.map((_, s) => s) : [this.filter.shard]; }
  get bandHeight() { return Math.floor(36 / this.bands.length); }
  bandTop(l, shard) { return this.tops[l] + 22 + Math.max(this.bands.indexOf(shard), 0) * this.bandHeight; }

  draw() {
    const { pen } = this, began = performance.now();
    pen.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    pen.clearRect(0, 0, this.width, this.height);
    const focus = this.hover >= 0 ? this.hover : this.chosen;
    this.focus = focus;
    this.side = focus >= 0 ? this.run.coneOf(focus).side : null;
    this.drawLanes();
    this.drawArrows();
    this.drawPoints();
    this.drawViolation();
    this.drawFocus();
    this.drawGutter();
    this.drawAxis();
    this.cost = performance.now() - began;
    this.drawn?.();
  }

  /** Calls back with the pixels of every span that is seen. */
  each(spans, draw) {
    const to = this.to, end = this.run.end;
    let last = -1;
    for (let i = spans.after(this.from); i < spans.from.length && spans.from[i] <= to; i++) {
      const x1 = Math.max(this.x(spans.from[i]), GUTTER), x2 = Math.min(this.x(Math.min(spans.to[i], end)), this.width);
      // What is narrower than a pixel and lies on one already drawn adds nothing.
      if (x2 - x1 < .5 && Math.floor(x2) === last && spans.value[i] === 0) continue;
      last = Math.floor(x2);
      draw(x1, Math.max(x2 - x1, 1), i, spans.value[i]);
    }
  }

  drawLanes() {
    const { pen, run, colours } = this;
    pen.fillStyle = colours.back;
    pen.fillRect(GUTTER, 0, this.plot, AXIS);
    run.lanes.forEach((name, l) => {
      pen.fillStyle = l % 2 ? colours["lane-other"] : colours.lane;
      pen.fillRect(GUTTER, this.tops[l], this.plot, this.heights[l]);
    });
    pen.font = "600 10.5px system-ui, sans-serif";
    pen.textBaseline = "middle";
    run.lanes.forEach((name, l) => {
      if (this.heights[l] === NODE_HEIGHT) this.drawNode(l);
      else if (l >= run.nodes) this.drawClient(l);
      else this.line(GUTTER, this.middles[l], this.width, this.middles[l], colours.line);
    });
  }

  line(x1, y1, x2, y2, colour) {
    const { pen } = this;
    pen.strokeStyle = colour;
    pen.lineWidth = 1;
    pen.beginPath(); pen.moveTo(x1, y1); pen.lineTo(x2, y2); pen.stroke();
  }

  drawNode(l) {
    const { pen, run, colours, filter } = this, spans = run.spans, top = this.tops[l];
    const dim = this.side ? .45 : 1;
    for (const shard of this.bands) {
      const y = this.bandTop(l, shard), height = this.bandHeight - 2;
      this.each(spans.role[l][shard], (x, width, i, { term, part }) => {
        pen.globalAlpha = dim;
        pen.fillStyle = part === 2 ? this.leaderColour(term) : this.followerColour(term);
        pen.fillRect(x, y, width, height);
        if (part === 1) { pen.fillStyle = this.stripes; pen.fillRect(x, y, width, height); }
        const label = (part === 2 ? "leads t" : part === 1 ? "asks for votes t" : "t") + term;
        if (width > 26 && height > 11 && pen.measureText(label).width + 10 < width) {
          const middle = y + height / 2 + .5;
          if (part === 1) { pen.strokeStyle = colours.lane; pen.lineWidth = 3; pen.strokeText(label, x + 5, middle); }
          this.word(label, x + 5, middle, part === 2 ? "#fff" : part === 1 ? colours.text : colours.quiet);
        }
      });
    }
    pen.globalAlpha = dim;
    if (filter.groups.disk) {
      this.each(spans.sync[l], (x, width, i, broken) => {
        pen.fillStyle = broken ? colours.alarm : colours.disk;
        pen.fillRect(x, top + 64, width, 6);
      });
      this.each(spans.flush[l], (x, width, i, broken) => {
        pen.fillStyle = broken ? colours.alarm : colours.flush;
        pen.fillRect(x, top + 74, width, 6);
      });
    }
    pen.globalAlpha = 1;
    this.each(spans.pause[l], (x, width) => {
      pen.fillStyle = this.hatch;
      pen.fillRect(x, top + 4, width, NODE_HEIGHT - 8);
      if (width > 54) this.word("paused", x + 6, top + 12, colours.quiet);
    });
    this.each(spans.down[l], (x, width) => {
      pen.fillStyle = colours.back;
      pen.fillRect(x, top, width, NODE_HEIGHT);
      this.line(x, this.middles[l], x + width, this.middles[l], colours.line);
      if (width > 44) this.word("down", x + 6, this.middles[l] - 9, colours.quiet);
    });
    this.each(spans.cut[l], (x, width, i, way) => {
      pen.strokeStyle = colours.alarm;
      pen.lineWidth = 1.5;
      pen.setLineDash([3, 3]);
      pen.strokeRect(x + .5, top + 3, width - 1, NODE_HEIGHT - 6);
      pen.setLineDash([]);
      const label = ["cut off", "nothing comes in", "nothing goes out"][way];
      if (width > 100) this.word(label, x + width - 8 - pen.measureText(label).width, top + 12, colours.alarm);
    });
  }

  drawClient(l) {
    const { pen, run, colours, filter } = this, y = this.tops[l] + 6;
    this.line(GUTTER, this.middles[l], this.width, this.middles[l], colours.line);
    if (!filter.groups.client) return;
    pen.globalAlpha = this.side ? .4 : 1;
    this.each(run.spans.operation[l], (x, width, i, outcome) => {
      pen.fillStyle = colours[OUTCOMES[outcome]];
      pen.fillRect(x, y, Math.max(width, 1.5), 10);
    });
    pen.globalAlpha = 1;
  }

  word(text, x, y, colour) {
    this.pen.fillStyle = colour;
    this.pen.fillText(text, x, y);
  }

  /** The arrows that lie in the window and are not filtered away. */
  arrowsInView() {
    const { run } = this, to = this.to, from = this.from, list = [];
    for (let block = 0; block * run.block < run.arrowFrom.length; block++) {
      const first = block * run.block;
      if (run.at[run.arrowFrom[first]] > to) break;
      if (run.blockEnd[block] < from) continue;
      const last = Math.min(first + run.block, run.arrowFrom.length);
      for (let i = first; i < last; i++) {
        const send = run.arrowFrom[i], end = run.arrowTo[i];
        if (run.at[send] > to || (end < 0 ? run.end : run.at[end]) < from || !this.shown(send)) continue;
        list.push(i);
      }
    }
    return list;
  }

  /** An arrow's two ends in pixels. What is lost at once still shows where it was going. */
  endsOf(i) {
    const { run } = this, send = run.arrowFrom[i], end = run.arrowTo[i];
    const x1 = this.x(run.at[send]), y1 = this.middles[run.lane[send]], y2 = this.middles[run.peer[send]];
    if (end < 0) return [x1, y1, this.x(run.end) + 14, y1 + (y2 - y1) * .7];
    const x2 = this.x(run.at[end]);
    if (run.kind[end] === run.K.lose && run.a[end] < 2) return [x1, y1, x1 + 9, y1 + (y2 - y1) * .35];
    return [x1, y1, x2, y2];
  }

  drawArrows() {
    const { pen, run, colours, side } = this;
    const all = this.arrowsInView(), stride = Math.max(1, Math.ceil(all.length / ARROWS_MAX));
    this.arrows = { all: all.length, stride };
    const groups = new Map(), crosses = [], heads = [];
    const put = (key, i) => { const group = groups.get(key); if (group) group.push(i); else groups.set(key, [i]); };
    all.forEach((i, place) => {
      const send = run.arrowFrom[i], end = run.arrowTo[i], marked = run.marked[send] || (end >= 0 && run.marked[end]);
      if (place % stride && !marked) return;
      let key = this.saidColour[run.a[send]];
      if (side) {
        const cause = side[send] & 1 && end >= 0 && side[end] & 1, effect = side[send] >= 2 && end >= 0 && side[end] & 2;
        key = cause ? "past" : effect ? "future" : key + " dim";
      }
      if (marked && !side) key = "alarm";
      put(key + (run.arrowCopy[i] ? " copy" : ""), i);
    });
    const crowded = all.length / stride;
    pen.save();
    pen.beginPath(); pen.rect(GUTTER, AXIS, this.plot, this.height - AXIS); pen.clip();
    for (const [key, list] of groups) {
      const [colour, ...how] = key.split(" "), dim = how.includes("dim");
      const strong = colour === "past" || colour === "future" || colour === "alarm";
      pen.strokeStyle = pen.fillStyle = colours[colour];
      // The more there are, the paler each: what lies under them must stay readable.
      pen.globalAlpha = dim ? Math.min(.13, 120 / crowded) : strong ? Math.min(.95, Math.max(.12, 500 / crowded)) : Math.min(.8, Math.max(.08, 400 / crowded));
      pen.lineWidth = strong && crowded < 1500 ? 1.6 : 1;
      if (how.includes("copy") && crowded < 1500) pen.setLineDash([4, 3]);
      crosses.length = heads.length = 0;
      pen.beginPath();
      for (const i of list) {
        const [x1, y1, x2, y2] = this.endsOf(i), end = run.arrowTo[i];
        pen.moveTo(x1, y1);
        pen.lineTo(x2, y2);
        if (end >= 0) (run.kind[end] === run.K.lose ? crosses : heads).push(x1, y1, x2, y2);
      }
      pen.stroke();
      pen.setLineDash([]);
      if (crowded < 1500) {
        pen.beginPath();
        for (let j = 0; j < heads.length; j += 4) this.head(heads[j], heads[j + 1], heads[j + 2], heads[j + 3]);
        pen.fill();
      }
      if (!dim && crowded < 2000) {
        pen.globalAlpha = 1;
        pen.strokeStyle = colours.alarm;
        pen.lineWidth = 1.4;
        pen.beginPath();
        for (let j = 0; j < crosses.length; j += 4) {
          const x = crosses[j + 2], y = crosses[j + 3];
          pen.moveTo(x - 3.5, y - 3.5); pen.lineTo(x + 3.5, y + 3.5); pen.moveTo(x + 3.5, y - 3.5); pen.lineTo(x - 3.5, y + 3.5);
        }
        pen.stroke();
      }
    }
    pen.restore();
  }

  head(x1, y1, x2, y2) {
    const { pen } = this, length = Math.hypot(x2 - x1, y2 - y1) || 1, ux = (x2 - x1) / length, uy = (y2 - y1) / length;
    pen.moveTo(x2, y2);
    pen.lineTo(x2 - ux * 7 - uy * 2.6, y2 - uy * 7 + ux * 2.6);
    pen.lineTo(x2 - ux * 7 + uy * 2.6, y2 - uy * 7 - ux * 2.6);
    pen.closePath();
  }

  /** Commits, applies and the moments that have no arrow and no length. */
  drawPoints() {
    const { pen, run, colours, side, filter } = this, K = run.K;
    const first = run.firstAt(this.from), last = run.firstAt(this.to);
    const few = last - first < POINTS_MAX * 4;
    let column = -1;
    for (let e = first; e < last; e++) {
      const k = run.kind[e], l = run.lane[e];
      if (!few && k === K.tell && filter.groups.watch) {
        const x = Math.round(this.x(run.at[e])), cell = x * run.lanes.length + l;
        if (cell !== column) { pen.fillStyle = colours.watch; pen.fillRect(x, this.middles[l] - 4, 1, 8); }
        column = cell;
      }
      const fault = k === K.crash || k === K.start || k === K["clock-jump"] || k === K.note || k === K.install || k === K.calm || k === K.heal;
      const found = this.found && this.found.has(e), marked = run.marked[e];
      if (!fault && !marked && !found && !few) continue;
      if (!marked && !found && !this.shown(e)) continue;
      const x = this.x(run.at[e]), y = this.y(e);
      if (found) { pen.fillStyle = colours.found; pen.globalAlpha = .35; pen.beginPath(); pen.arc(x, y, 7, 0, 7); pen.fill(); pen.globalAlpha = 1; }
      pen.globalAlpha = side && side[e] === 0 ? .3 : 1;
      if (k === K.calm || k === K.heal) {
        pen.setLineDash([2, 4]);
        this.line(x, AXIS - 18, x, this.height, k === K.calm ? colours.commit : colours.quiet);
        pen.setLineDash([]);
        if (this.room(e)) this.word(k === K.calm ? "all faults end" : "cuts heal", x + 4, AXIS - 11, k === K.calm ? colours.commit : colours.quiet);
      } else if (k === K.commit || k === K.apply) {
        pen.fillStyle = colours[k === K.commit ? "commit" : "apply"];
        pen.beginPath();
        // A commit points up at its band, an apply fills the dot above it.
        if (k === K.commit) { pen.moveTo(x - 3, y + 5); pen.lineTo(x + 3, y + 5); pen.lineTo(x, y); pen.fill(); }
        else { pen.arc(x, y - 4, 2, 0, 7); pen.fill(); }
      } else if (k === K.crash || k === K.start) {
        pen.fillStyle = k === K.crash ? colours.alarm : colours.done;
        pen.fillRect(x - 1, this.tops[l] + 2, 2, this.heights[l] - 4);
        if (this.heights[l] === NODE_HEIGHT && this.room(e)) this.word(k === K.crash ? "crash" : "start", x + 8, this.tops[l] + 9, pen.fillStyle);
      } else if (k === K["clock-jump"] || k === K.note || k === K.install) {
        const colour = k === K.install ? colours.snapshot : colours.quiet;
        pen.fillStyle = colour;
        pen.beginPath(); pen.moveTo(x, y - 5); pen.lineTo(x + 5, y); pen.lineTo(x, y + 5); pen.lineTo(x - 5, y); pen.fill();
        if (this.room(e)) this.word(k === K.install ? "snapshot" : k === K.note ? run.textOf(e) : "clock jumps", x + 7, y, colour);
      } else if (k === K.watch || k === K.tell) {
        if (!filter.groups.watch) continue;
        pen.fillStyle = colours.watch;
        pen.beginPath(); pen.arc(x, y, k === K.tell ? 2.5 : 3.5, 0, 7); pen.fill();
        if (last - first < 600) { pen.globalAlpha *= .35; this.line(x, y, x, this.middles[run.peer[e]], colours.watch); }
      } else if ((k === K.ask || k === K.answer) && last - first < 600) {
        pen.globalAlpha *= .35;
        this.line(x, y, x, this.middles[run.peer[e]], colours[k === K.ask ? "quiet" : OUTCOMES[run.b[e]]]);
      }
      pen.globalAlpha = 1;
      if (marked && k !== K.violation) {
        pen.strokeStyle = colours.alarm;
        pen.lineWidth = 2;
        pen.beginPath(); pen.arc(x, y, 6.5, 0, 7); pen.stroke();
      }
      if (side && side[e] && side[e] < 3 && few) {
        pen.fillStyle = colours[side[e] === 1 ? "past" : "future"];
        pen.beginPath(); pen.arc(x, y, 2.2, 0, 7); pen.fill();
      }
    }
  }

  /** Whether a label fits behind an event: the next one that has a label in this lane must not follow at once. */
  room(e) {
    const { run } = this;
    this.labelled ??= Array.from({ length: run.n }, (_, i) => i).filter((i) => [run.K.crash, run.K.start, run.K.heal, run.K.calm, run.K.install,
      run.K["clock-jump"], run.K.note].includes(run.kind[i]));
    const limit = run.at[e] + (run.kind[e] === run.K.note ? 16 + 6.5 * run.textOf(e).length : 84) / this.scale;
    for (const i of this.labelled) {
      if (run.at[i] >= limit) break;
      if (i > e && run.lane[i] === run.lane[e]) return false;
    }
    return true;
  }

  drawViolation() {
    const { pen, run, colours } = this;
    if (!run.violation) return;
    const x = this.x(run.at[run.violation.at]);
    if (x < GUTTER || x > this.width + 2) return;
    pen.fillStyle = colours.alarm;
    pen.fillRect(x - 1, AXIS - 18, 2, this.height);
    pen.font = "700 11px system-ui, sans-serif";
    const words = `✕ ${run.violation.rule}`, width = pen.measureText(words).width + 12;
    const left = Math.min(Math.max(x - width / 2, GUTTER), this.width - width);
    pen.fillRect(left, AXIS - 18, width, 17);
    this.word(words, left + 6, AXIS - 9, colours.lane);
    pen.font = "600 10.5px system-ui, sans-serif";
  }

  drawFocus() {
    const { pen, run, colours, focus } = this;
    if (focus < 0) return;
    const x = this.x(run.at[focus]), y = this.y(focus);
    pen.strokeStyle = colours.text;
    pen.globalAlpha = .35;
    this.line(x, AXIS, x, this.height, colours.text);
    pen.globalAlpha = 1;
    pen.fillStyle = colours.lane;
    pen.strokeStyle = colours.text;
    pen.lineWidth = 2;
    pen.beginPath(); pen.arc(x, y, 4.5, 0, 7); pen.fill(); pen.stroke();
  }

  drawGutter() {
    const { pen, run, colours } = this;
    pen.fillStyle = colours.back;
    pen.fillRect(0, 0, GUTTER, this.height);
    this.line(GUTTER - .5, 0, GUTTER - .5, this.height, colours.line);
    run.lanes.forEach((name, l) => {
      const big = this.heights[l] === NODE_HEIGHT;
      pen.font = big ? "700 14px system-ui, sans-serif" : "600 11.5px system-ui, sans-serif";
      this.word(big ? name : run.laneName(l), 10, this.middles[l] - (big ? 1 : 0), big ? colours.text : colours.quiet);
      pen.font = "500 9.5px system-ui, sans-serif";
      if (!big) return;
      pen.textAlign = "right";
      const right = GUTTER - 7;
      for (const shard of this.bands) this.word(`s${run.shards[shard]}`, right, this.bandTop(l, shard) + this.bandHeight / 2, colours.quiet);
      this.word("log", right, this.tops[l] + 67, colours.quiet);
      this.word("store", right, this.tops[l] + 78, colours.quiet);
      this.word("commit", right, this.tops[l] + 15, colours.quiet);
      pen.textAlign = "left";
    });
  }

  drawAxis() {
    const { pen, colours } = this;
    pen.fillStyle = colours.back;
    pen.fillRect(GUTTER, 0, this.plot, AXIS - 19);
    this.line(0, AXIS - .5, this.width, AXIS - .5, colours.line);
    const rough = (this.to - this.from) / Math.max(this.plot / 110, 1), power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
    pen.font = "500 11px system-ui, sans-serif";
    for (let time = Math.ceil(Math.max(this.from, 0) / step) * step; time <= Math.min(this.to, this.run.end); time += step) {
      const x = this.x(time);
      this.line(x, 0, x, 6, colours.quiet);
      this.word(seconds(time, step), x + 3, 10, colours.quiet);
    }
  }

  /** The event that lies under the pointer, or -1. */
  pick(px, py) {
    if (px < GUTTER || py < AXIS) return -1;
    const { run } = this;
    let best = -1, least = 9;
    const first = run.firstAt(this.time(px - 9)), last = run.firstAt(this.time(px + 9));
    if (last - first < 20000) {
      for (let e = first; e < last; e++) {
        if (run.lane[e] < 0 && run.kind[e] !== run.K.violation) continue;
        if (!this.shown(e) && !run.marked[e]) continue;
        const distance = run.kind[e] === run.K.violation ? Math.abs(this.x(run.at[e]) - px) + 2 : Math.hypot(this.x(run.at[e]) - px, this.y(e) - py);
        if (distance < least) { least = distance; best = e; }
      }
    }
    if (best >= 0) return best;
    const l = this.tops.findIndex((top, lane) => py >= top && py < top + this.heights[lane]);
    if (l >= run.nodes) return this.spanAt(run.spans.operation[l], px);
    if (this.arrows && this.arrows.all <= ARROWS_MAX) {
      least = 4;
      for (const i of this.arrowsInView()) {
        const distance = fromSegment(px, py, this.endsOf(i));
        if (distance < least) { least = distance; best = run.arrowTo[i] < 0 ? run.arrowFrom[i] : run.arrowTo[i]; }
      }
      if (best >= 0) return best;
    }
    if (l < 0 || this.heights[l] < NODE_HEIGHT) return -1;
    const inLane = py - this.tops[l];
    if (inLane > 62 && inLane < 72) return this.spanAt(run.spans.sync[l], px);
    if (inLane > 72 && inLane < 82) return this.spanAt(run.spans.flush[l], px);
    const band = this.bands[Math.floor((inLane - 22) / this.bandHeight)];
    return band === undefined ? -1 : this.spanAt(run.spans.role[l][band], px);
  }

  spanAt(spans, px) {
    const i = spans.after(this.time(px));
    return i < spans.from.length && this.x(spans.from[i]) <= px + 2 ? spans.begin[i] : -1;
  }
}

/** A time for people; as many digits as the step between two needs. */
function seconds(us, step = 1) {
  if (step >= 1000 || us >= 1e6) return `${(us / 1e6).toFixed(Math.min(6, Math.max(0, 6 - Math.floor(Math.log10(step)))))} s`;
  return `${(us / 1e3).toFixed(step >= 1 ? 3 : 4)} ms`;
}

function fromSegment(px, py, [x1, y1, x2, y2]) {
  const dx = x2 - x1, dy = y2 - y1, length = dx * dx + dy * dy;
  const part = length ? Math.max(0, Math.min(1, ((px - x1) * dx + (py - y1) * dy) / length)) : 0;
  return Math.hypot(px - x1 - part * dx, py - y1 - part * dy);
}

