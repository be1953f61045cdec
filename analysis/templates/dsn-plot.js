/* Interactive plot of data sequence numbers over time.
 *
 * For every element of class "dsn-plot": its child of type application/json holds what analysis/charts/interactive.py
 * packs. Nothing is loaded. The element gets a property `dsnPlot` with view(), zoomTo(x0, x1, y0, y1), fit(x0, x1),
 * reset(), nearest(x, y), counts() and describe(hit). Times are seconds (data.start: the connection's first packet), places
 * bytes since the first byte of its data stream. A plot in a closed details element is built when that is opened.
 */
(function () {
  "use strict";
  const FIRST = 0, RETRANSMISSION = 1, REINJECTION = 2;
  const INK = "#222222", SOFT = "#57606a", GRID = "#e4e4e4", EDGE = "#666666", ACK_LINE = "#6b6b6b";
  const FONT = "12px system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif";
  const SMALL = "11px system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif";
  const BOLD = "600 " + SMALL;
  const SPAN_MIN_S = 2e-6, SPAN_MIN_BYTES = 16, NEAR_PX = 14, LINE_PX = 13;

  /* ---- data ---- */

  /* Columns as they are packed: plain numbers, "up" sums of steps, "signed" sums of signed steps. */
  const PACKED = { time: "up", begin: "signed", size: "signed", code: "", subflow: "", file: "", frame: "signed" };

  function unpacked(table, data) {
    const raw = atob(table.data), n = table.count, out = { count: n, total: table.total };
    let at = 0;
    for (const name of Object.keys(PACKED)) out[name] = new Float64Array(n);
    for (const name of table.columns) {
      const column = out[name], step = PACKED[name];
      for (let i = 0, last = 0; i < n; i++) {
        let value = 0, scale = 1, byte = 0;
        do {
          byte = raw.charCodeAt(at++);
          value += (byte & 127) * scale;
          scale *= 128;
        } while (byte & 128);
        if (step === "signed") value = value % 2 ? -(value + 1) / 2 : value / 2;
        if (step) last = value += last;
        column[i] = value;
      }
    }
    out.group = new Uint8Array(n);
    out.kind = new Uint8Array(n);
    out.highest = new Float64Array(n);
    for (let i = 0, top = 0; i < n; i++) {
      out.time[i] = out.time[i] / 1e6 + data.start;
      out.group[i] = Math.floor(out.code[i] / 4);
      out.kind[i] = out.code[i] % 4;
      out.subflow[i] += data.groups.length ? data.groups[out.group[i]].subflow : 0;
      out.highest[i] = top = Math.max(top, out.begin[i]);
    }
    return out;
  }

  /** Index of the first value that is not below `wanted` in ascending values. */
  function lowerBound(values, wanted) {
    let low = 0, high = values.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (values[middle] < wanted) low = middle + 1; else high = middle;
    }
    return low;
  }

  /* ---- words ---- */

  function niceStep(span, wanted) {
    const power = Math.pow(10, Math.floor(Math.log10(span / wanted)));
    return [1, 2, 5, 10].map((m) => m * power).find((s) => span / s <= wanted) || 10 * power;
  }

  function digits(step) {
    return Math.min(9, Math.max(0, Math.ceil(-Math.log10(step) - 1e-9)));
  }

  function byteUnit(top) {
    return [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]].find((u) => top >= 2 * u[1]) || ["bytes", 1];
  }

  function grouped(number) {
    return String(Math.round(number)).replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
  }

  function durationText(seconds) {
    if (seconds < 0.9995e-3) return Math.round(seconds * 1e6) + " µs";
    if (seconds < 0.9995) return Number((seconds * 1e3).toPrecision(3)) + " ms";
    return Number(seconds.toPrecision(3)) + " s";
  }

  function element(tag, cls, text) {
    const out = document.createElement(tag);
    if (cls) out.className = cls;
    if (text !== undefined) out.textContent = text;
    return out;
  }

  /* ---- the plot ---- */

  function build(host) {
    const data = JSON.parse(host.querySelector("script[type='application/json']").textContent);
    const segments = unpacked(data.segments, data), acks = unpacked(data.acks, data);
    const marks = [...data.marks.map(([at, text]) => ({ at, text, event: false })), ...data.events.map(([at, text]) => ({ at, text, event: true }))];
    marks.sort((a, b) => a.at - b.at);
    const shown = { groups: data.groups.map(() => true), kinds: data.kinds.map(() => true), acks: true, signals: true, events: true };
    const full = wholeView();
    let view = Object.assign({}, full), box = null, drag = null, queued = false, hit = null;
    const touches = new Map();

    const tools = element("div", "dsn-tools"), stage = element("div", "dsn-stage"), legend = element("div", "dsn-legend");
    const canvas = element("canvas"), over = element("canvas"), tip = element("div", "dsn-tip"), status = element("p", "dsn-status");
    over.tabIndex = 0;
    over.setAttribute("role", "application");
    over.setAttribute("aria-label", data.title + ": data sequence numbers over time. Plus and minus zoom, arrow keys move, 0 shows all.");
    tip.hidden = true;
    stage.append(canvas, over, tip);
    host.append(tools, stage, legend, status);

    function wholeView() {
      let low = Infinity, high = -Infinity;
      for (let i = 0; i < segments.count; i++) {
        low = Math.min(low, segments.begin[i]);
        high = Math.max(high, segments.begin[i] + segments.size[i]);
      }
      for (let i = 0; i < acks.count; i++) {
        low = Math.min(low, acks.begin[i]);
        high = Math.max(high, acks.begin[i]);
      }
      if (low > high) [low, high] = [0, 1];
      const edge = Math.max((high - low) * 0.04, 1), side = Math.max((data.span[1] - data.span[0]) * 0.01, SPAN_MIN_S);
      return { x0: data.span[0] - side, x1: data.span[1] + side, y0: low - edge, y1: high + edge };
    }

    /* view */

    function setView(x0, x1, y0, y1) {
      const wide = full.x1 - full.x0, tall = full.y1 - full.y0;
      let w = Math.min(Math.max(x1 - x0, SPAN_MIN_S), wide), h = Math.min(Math.max(y1 - y0, SPAN_MIN_BYTES), tall);
      let left = (x0 + x1 - w) / 2, low = (y0 + y1 - h) / 2;
      left = Math.min(Math.max(left, full.x0), full.x1 - w);
      low = Math.min(Math.max(low, full.y0), full.y1 - h);
      view = { x0: left, x1: left + w, y0: low, y1: low + h };
      hideTip();
      redraw();
    }

    /** Show the time from x0 to x1 and as much of the height as there is data in it. */
    function fit(x0, x1) {
      let low = Infinity, high = -Infinity;
      for (let i = lowerBound(segments.time, x0); i < segments.count && segments.time[i] <= x1; i++) {
        if (!shown.groups[segments.group[i]] || !shown.kinds[segments.kind[i]]) continue;
        low = Math.min(low, segments.begin[i]);
        high = Math.max(high, segments.begin[i] + segments.size[i]);
      }
      for (let i = lowerBound(acks.time, x0); shown.acks && i < acks.count && acks.time[i] <= x1; i++) {
        low = Math.min(low, acks.begin[i]);
        high = Math.max(high, acks.begin[i]);
      }
      if (low > high) [low, high] = [view.y0, view.y1];
      const edge = Math.max((high - low) * 0.06, 1);
      setView(x0, x1, low - edge, high + edge);
    }

    function reset() { setView(full.x0, full.x1, full.y0, full.y1); }

    function zoomTime(factor) {
      const middle = (view.x0 + view.x1) / 2, half = ((view.x1 - view.x0) / 2) * factor;
      if (half * 2 >= full.x1 - full.x0) reset(); else fit(middle - half, middle + half);
    }

    function zoomAt(px, py, factorX, factorY) {
      const x = toX(px), y = toY(py);
      setView(x - (x - view.x0) * factorX, x + (view.x1 - x) * factorX, y - (y - view.y0) * factorY, y + (view.y1 - y) * factorY);
    }

    function move(partX, partY) {
      const dx = (view.x1 - view.x0) * partX, dy = (view.y1 - view.y0) * partY;
      setView(view.x0 + dx, view.x1 + dx, view.y0 + dy, view.y1 + dy);
    }

    const toX = (px) => view.x0 + ((px - box.left) / box.width) * (view.x1 - view.x0);
    const toY = (py) => view.y1 - ((py - box.top) / box.height) * (view.y1 - view.y0);
    const pxX = (x) => box.left + ((x - view.x0) / (view.x1 - view.x0)) * box.width;
    const pxY = (y) => box.top + ((view.y1 - y) / (view.y1 - view.y0)) * box.height;

    /* drawing */

    function redraw() {
      if (queued) return;
      queued = true;
      requestAnimationFrame(() => { queued = false; draw(); });
    }

    function prepared(surface) {
      const ratio = window.devicePixelRatio || 1, width = stage.clientWidth, height = stage.clientHeight;
      if (surface.width !== Math.round(width * ratio) || surface.height !== Math.round(height * ratio)) {
        surface.width = Math.round(width * ratio);
        surface.height = Math.round(height * ratio);
      }
      const pen = surface.getContext("2d");
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      pen.clearRect(0, 0, width, height);
      return pen;
    }

    function draw() {
      if (!stage.clientWidth) return;
      const pen = prepared(canvas);
      const names = placedMarks(pen);
      const left = stage.clientWidth < 520 ? 48 : 62, top = 8 + LINE_PX * names.lines;
      box = { left, top, width: stage.clientWidth - left - 10, height: stage.clientHeight - top - 40 };
      pen.fillStyle = "#ffffff";
      pen.fillRect(0, 0, stage.clientWidth, stage.clientHeight);
      drawGap(pen);
      drawGrid(pen);
      pen.save();
      pen.beginPath();
      pen.rect(box.left, box.top, box.width, box.height);
      pen.clip();
      if (shown.acks) drawAcks(pen);
      const seen = drawSegments(pen);
      pen.restore();
      drawMarks(pen, names.places);
      pen.strokeStyle = EDGE;
      pen.lineWidth = 1;
      pen.beginPath();
      pen.moveTo(box.left - 0.5, box.top);
      pen.lineTo(box.left - 0.5, box.top + box.height + 0.5);
      pen.lineTo(box.left + box.width, box.top + box.height + 0.5);
      pen.stroke();
      tell(seen);
    }

    function drawGrid(pen) {
      pen.font = FONT;
      pen.fillStyle = INK;
      pen.strokeStyle = GRID;
      pen.lineWidth = 1;
      const stepX = niceStep(view.x1 - view.x0, Math.max(2, box.width / 90)), placesX = digits(stepX);
      pen.textAlign = "center";
      pen.textBaseline = "top";
      for (let k = Math.ceil(view.x0 / stepX); k * stepX <= view.x1; k++) {
        const x = Math.round(pxX(k * stepX)) + 0.5, text = (k * stepX).toFixed(placesX);
        line(pen, x, box.top, x, box.top + box.height);
        if (x - pen.measureText(text).width / 2 > 0 && x + pen.measureText(text).width / 2 < stage.clientWidth) pen.fillText(text, x, box.top + box.height + 5);
      }
      pen.fillText("time (s)", box.left + box.width / 2, box.top + box.height + 22);
      const unit = byteUnit(Math.max(view.y1, 1)), stepY = niceStep((view.y1 - view.y0) / unit[1], Math.max(2, box.height / 55));
      const placesY = digits(stepY);
      pen.textAlign = "right";
      pen.textBaseline = "middle";
      for (let k = Math.ceil(view.y0 / unit[1] / stepY); k * stepY * unit[1] <= view.y1; k++) {
        const y = Math.round(pxY(k * stepY * unit[1])) + 0.5, text = (k * stepY).toFixed(placesY);
        line(pen, box.left, y, box.left + box.width, y);
        if (pen.measureText(text).width > box.left - 8) {
          pen.font = "10px sans-serif";
          pen.fillText(text, box.left - 5, y, box.left - 7);
          pen.font = FONT;
        } else pen.fillText(text, box.left - 5, y);
      }
      pen.textAlign = "left";
      pen.textBaseline = "top";
      pen.fillText("data (" + unit[0] + ")", 2, box.top + box.height + 22);
    }

    function line(pen, x0, y0, x1, y1) {
      pen.beginPath();
      pen.moveTo(x0, y0);
      pen.lineTo(x1, y1);
      pen.stroke();
    }

    function drawGap(pen) {
      if (!data.gap || data.gap[0] >= view.x1 || data.gap[1] <= view.x0) return;
      const x0 = Math.max(pxX(data.gap[0]), box.left), x1 = Math.min(pxX(data.gap[1]), box.left + box.width);
      pen.fillStyle = "rgba(213, 94, 0, 0.16)";
      pen.fillRect(x0, box.top, Math.max(x1 - x0, 1), box.height);
    }

    /** Names of the marks in view on as many lines as needed, at most data.levels; x is where the mark is. */
    function placedMarks(pen) {
      const left = stage.clientWidth < 520 ? 48 : 62, width = stage.clientWidth - left - 10, used = [], places = [];
      for (const { at, text, event } of marks) {
        if (at < view.x0 || at > view.x1 || !(event ? shown.events : shown.signals)) continue;
        pen.font = event ? BOLD : SMALL;
        const x = left + ((at - view.x0) / (view.x1 - view.x0)) * width, length = pen.measureText(text).width + 8;
        const flip = x + length > left + width && x - length > left, begin = flip ? x - length : x;
        let level = used.findIndex((end) => end <= begin);
        if (level < 0) level = used.length;
        if (level < data.levels) used[level] = begin + length;
        places.push({ x, text: level < data.levels ? text : "", level, flip, event });
      }
      return { places, lines: used.length };
    }

    function drawMarks(pen, places) {
      pen.textBaseline = "alphabetic";
      pen.strokeStyle = "rgba(68, 68, 68, 0.75)";
      pen.fillStyle = "#444444";
      pen.lineWidth = 1;
      for (const mark of places) {
        const x = Math.round(mark.x) + 0.5;
        pen.font = mark.event ? BOLD : SMALL;
        pen.setLineDash(mark.event ? [] : [3, 2]);
        line(pen, x, box.top, x, box.top + box.height);
        pen.textAlign = mark.flip ? "right" : "left";
        if (mark.text) pen.fillText(mark.text, mark.flip ? x - 3 : x + 2, box.top - 4 - LINE_PX * mark.level);
      }
      pen.setLineDash([]);
    }

    function drawAcks(pen) {
      const from = Math.max(lowerBound(acks.time, view.x0) - 1, 0), to = Math.min(lowerBound(acks.time, view.x1) + 1, acks.count);
      pen.strokeStyle = ACK_LINE;
      pen.lineWidth = 0.8;
      pen.beginPath();
      for (let i = from, lastX = -1, lastY = -1; i < to; i++) {
        const x = pxX(acks.time[i]), y = pxY(acks.highest[i]);
        if (i > from && Math.abs(x - lastX) < 0.3 && Math.abs(y - lastY) < 0.3) continue;
        if (i === from) pen.moveTo(x, y);
        else { pen.lineTo(x, lastY); pen.lineTo(x, y); }
        [lastX, lastY] = [x, y];
      }
      pen.stroke();
      pen.globalAlpha = 0.65;
      const once = marker();
      for (let i = from, colour = -1; i < to; i++) {
        const group = acks.group[i], x = pxX(acks.time[i]), y = pxY(acks.begin[i]);
        if (!shown.groups[group] || !once(x, y, 1)) continue;
        if (group !== colour) pen.fillStyle = data.groups[colour = group].colour;
        pen.fillRect(x - 3, y - 0.6, 6, 1.2);
      }
      pen.globalAlpha = 1;
    }

    /** A function that is true the first time it is asked for a cell of `side` pixels within the plot. */
    function marker() {
      const ratio = window.devicePixelRatio || 1, columns = Math.ceil(box.width * ratio) + 2, rows = Math.ceil(box.height * ratio) + 2;
      const seen = new Uint8Array(columns * rows);
      return function (x, y, side) {
        const c = Math.floor(((x - box.left) * ratio) / side), r = Math.floor(((y - box.top) * ratio) / side);
        if (c < 0 || r < 0 || c >= columns || r >= rows) return false;
        const cell = r * columns + c;
        return seen[cell] ? false : (seen[cell] = 1) === 1;
      };
    }

    function drawSegments(pen) {
      const from = lowerBound(segments.time, view.x0), to = lowerBound(segments.time, view.x1 + 1e-9);
      const scale = box.height / (view.y1 - view.y0), once = marker(), seen = [0, 0, 0, 0];
      const rare = [];
      for (let i = from, colour = -1; i < to; i++) {
        const kind = segments.kind[i], group = segments.group[i], low = segments.begin[i], size = segments.size[i];
        if (!shown.groups[group] || !shown.kinds[kind] || low > view.y1 || low + size < view.y0) continue;
        seen[kind]++;
        const x = pxX(segments.time[i]), y = pxY(low), height = size * scale;
        if (kind !== FIRST) rare.push(i);
        if (height <= 2 && (kind !== FIRST || !once(x, y, 1))) continue;
        if (group !== colour) pen.fillStyle = data.groups[colour = group].colour;
        pen.fillRect(x - 1, height > 2 ? y - height : y - 1, 2, Math.max(height, 2));
      }
      for (const kind of [REINJECTION, RETRANSMISSION]) {
        const onceOfKind = marker();
        for (const i of rare) {
          const x = pxX(segments.time[i]), y = pxY(segments.begin[i]);
          if (segments.kind[i] === kind && onceOfKind(x, y, 3)) sign(pen, kind, x, y, data.groups[segments.group[i]].colour);
        }
      }
      return seen;
    }

    function sign(pen, kind, x, y, colour) {
      pen.beginPath();
      if (kind === REINJECTION) {
        pen.moveTo(x, y - 4);
        pen.lineTo(x + 3.8, y + 3);
        pen.lineTo(x - 3.8, y + 3);
        pen.closePath();
        pen.fillStyle = colour;
        pen.fill();
        pen.lineWidth = 0.8;
        pen.strokeStyle = INK;
      } else {
        pen.moveTo(x - 3.2, y - 3.2);
        pen.lineTo(x + 3.2, y + 3.2);
        pen.moveTo(x + 3.2, y - 3.2);
        pen.lineTo(x - 3.2, y + 3.2);
        pen.lineWidth = 1.5;
        pen.strokeStyle = colour;
      }
      pen.stroke();
    }

    function drawOver() {
      if (!box) return;
      const pen = prepared(over);
      if (drag && drag.kind === "select" && drag.moved) {
        const flat = Math.abs(drag.y1 - drag.y0) < 8;
        const x = Math.min(drag.x0, drag.x1), y = flat ? box.top : Math.min(drag.y0, drag.y1);
        pen.fillStyle = "rgba(0, 114, 178, 0.14)";
        pen.strokeStyle = "rgba(0, 114, 178, 0.8)";
        pen.fillRect(x, y, Math.abs(drag.x1 - drag.x0), flat ? box.height : Math.abs(drag.y1 - drag.y0));
        pen.strokeRect(x, y, Math.abs(drag.x1 - drag.x0), flat ? box.height : Math.abs(drag.y1 - drag.y0));
      }
      if (hit) {
        pen.strokeStyle = INK;
        pen.lineWidth = 1.4;
        pen.beginPath();
        pen.arc(hit.px, hit.py, 6, 0, 7);
        pen.stroke();
      }
    }

    /* words around the plot */

    function tell(seen) {
      const inView = seen.reduce((sum, n) => sum + n, 0);
      let text = view.x0 <= full.x0 && view.x1 >= full.x1 && view.y0 <= full.y0 && view.y1 >= full.y1 ? "All of it: " : "Zoomed in to " + durationText(view.x1 - view.x0) + ": ";
      text += grouped(inView) + (inView === 1 ? " segment" : " segments") + " in view.";
      if (data.gap) text += " Shaded: " + data.gapText + ".";
      if (segments.count < segments.total || acks.count < acks.total) {
        const zoom = (full.x1 - full.x0) / (view.x1 - view.x0);
        text += " The page holds " + grouped(segments.count) + " of " + grouped(segments.total) + " segments and " + grouped(acks.count) + " of " + grouped(acks.total) + " data ACKs: ";
        text += "enough for every pixel up to a zoom of " + Number(data.completeTo.toPrecision(2)) + (zoom > data.completeTo ? "; this zoom is larger, points are missing here." : ".");
      }
      if (data.unmapped) text += " " + grouped(data.unmapped) + " segments without a mapping are not shown.";
      if (data.marksLeftOut) text += " " + grouped(data.marksLeftOut) + " signals are not marked.";
      status.textContent = text;
    }

    function nearest(px, py) {
      if (!box) return null;
      let best = null, bound = NEAR_PX * NEAR_PX;
      const reach = (NEAR_PX / box.width) * (view.x1 - view.x0), scale = box.height / (view.y1 - view.y0), x = toX(px);
      for (const [table, name] of [[segments, "segment"], [acks, "ack"]]) {
        if (name === "ack" && !shown.acks) continue;
        for (let i = lowerBound(table.time, x - reach); i < table.count && table.time[i] <= x + reach; i++) {
          if (!shown.groups[table.group[i]] || (name === "segment" && !shown.kinds[table.kind[i]])) continue;
          const low = pxY(table.begin[i]), high = low - (name === "segment" ? table.size[i] * scale : 0);
          const hx = pxX(table.time[i]), dx = hx - px, dy = py > low ? py - low : py < high ? high - py : 0;
          const far = dx * dx + dy * dy + (name === "ack" ? 4 : 0);
          if (far < bound && low >= box.top && high <= box.top + box.height) {
            bound = far;
            best = { name, index: i, px: hx, py: Math.min(Math.max(py, high), low) };
          }
        }
      }
      return best;
    }

    function describe(found) {
      const table = found.name === "ack" ? acks : segments, i = found.index, begin = table.begin[i];
      const lines = [table.time[i].toFixed(6) + " s"];
      lines[0] += found.name === "ack" ? ", data ACK" : ", " + data.kinds[table.kind[i]];
      lines.push("subflow " + table.subflow[i] + " (" + data.groups[table.group[i]].label.replace(/^[^·]*· /, "") + ")");
      if (found.name === "ack") lines.push("up to byte " + grouped(begin));
      else lines.push("bytes " + grouped(begin) + " to " + grouped(begin + table.size[i]) + " (" + grouped(table.size[i]) + ")");
      if (data.idsn) lines.push("DSN " + BigInt.asUintN(64, BigInt(data.idsn) + BigInt(begin)).toString());
      if (table.frame[i]) lines.push("frame " + table.frame[i] + (data.files.length > 1 ? " of " + data.files[table.file[i]] : ""));
      return lines;
    }

    function showTip(found) {
      hit = found;
      if (found) {
        tip.textContent = describe(found).join("\n");
        tip.hidden = false;
        const right = found.px + 14 + tip.offsetWidth > stage.clientWidth;
        tip.style.left = Math.max(right ? found.px - 14 - tip.offsetWidth : found.px + 14, 0) + "px";
        tip.style.top = Math.max(Math.min(found.py - tip.offsetHeight / 2, stage.clientHeight - tip.offsetHeight), 0) + "px";
      } else tip.hidden = true;
      drawOver();
    }

    function hideTip() {
      if (hit || !tip.hidden) showTip(null);
    }

    /* pointer, wheel, keys */

    function place(event) {
      const edge = over.getBoundingClientRect();
      return [event.clientX - edge.left, event.clientY - edge.top];
    }

    function pressed(event) {
      if (!box || (event.pointerType === "mouse" && event.button > 1)) return;
      const [x, y] = place(event);
      hideTip();
      if (event.pointerType === "touch") {
        touches.set(event.pointerId, [x, y]);
        drag = { kind: "touch" };
      } else {
        drag = { kind: event.shiftKey || event.button === 1 ? "pan" : "select", x0: x, y0: y, x1: x, y1: y, moved: false };
        if (event.button === 1) event.preventDefault();
      }
      try { over.setPointerCapture(event.pointerId); } catch (none) { /* a made-up event has no pointer */ }
    }

    function moved(event) {
      if (!box) return;
      const [x, y] = place(event);
      if (!drag) showTip(nearest(x, y));
      else if (drag.kind === "touch") touched(event.pointerId, x, y);
      else if (drag.kind === "pan") {
        move(-(x - drag.x1) / box.width, (y - drag.y1) / box.height);
        [drag.x1, drag.y1] = [x, y];
      } else {
        [drag.x1, drag.y1] = [x, y];
        drag.moved = drag.moved || Math.hypot(x - drag.x0, y - drag.y0) > 5;
        drawOver();
      }
    }

    function touched(id, x, y) {
      const before = touches.get(id), other = [...touches].find(([key]) => key !== id);
      if (!before) return;
      touches.set(id, [x, y]);
      if (!other) {
        drag.moved = true;
        move(-(x - before[0]) / box.width, (y - before[1]) / box.height);
        return;
      }
      const [ox, oy] = other[1], was = Math.hypot(before[0] - ox, before[1] - oy), is = Math.hypot(x - ox, y - oy);
      if (was > 8 && is > 8) zoomAt((x + ox) / 2, (y + oy) / 2, was / is, was / is);
    }

    function released(event) {
      touches.delete(event.pointerId);
      const done = drag;
      if (!done || touches.size) return;
      drag = null;
      if (done.kind === "touch" && !done.moved) showTip(nearest(...place(event)));
      if (done.kind === "select" && done.moved && event.type !== "pointercancel") {
        const [left, right] = [Math.min(done.x0, done.x1), Math.max(done.x0, done.x1)];
        const [up, down] = [Math.min(done.y0, done.y1), Math.max(done.y0, done.y1)];
        if (right - left > 5 && down - up < 8) fit(toX(left), toX(right));
        else if (right - left > 5) setView(toX(left), toX(right), toY(down), toY(up));
      }
      drawOver();
    }

    function wheeled(event) {
      if (!box || !(event.ctrlKey || event.metaKey || document.activeElement === over)) return; // else the page scrolls
      event.preventDefault();
      const factor = Math.exp(Math.max(-1, Math.min(1, (event.deltaY || event.deltaX) * (event.deltaMode ? 0.05 : 0.0018))));
      const [x, y] = place(event);
      zoomAt(x, y, event.altKey ? 1 : factor, event.shiftKey ? 1 : factor);
    }

    const keys = {
      "+": () => zoomTime(0.5), "=": () => zoomTime(0.5), "-": () => zoomTime(2), _: () => zoomTime(2), 0: reset, Home: reset,
      ArrowLeft: () => move(-0.2, 0), ArrowRight: () => move(0.2, 0), ArrowUp: () => move(0, 0.2), ArrowDown: () => move(0, -0.2),
      g: showGap, Escape: () => { drag = null; hideTip(); drawOver(); },
    };

    function typed(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(keys, event.key)) return;
      event.preventDefault();
      keys[event.key]();
    }

    function showGap() {
      if (!data.gap) return;
      const length = data.gap[1] - data.gap[0];
      fit(data.gap[0] - length * 0.5, data.gap[1] + length * 0.8);
    }

    /* buttons and legend */

    function button(text, label, action) {
      const out = element("button", "", text);
      out.type = "button";
      out.title = label;
      out.setAttribute("aria-label", label);
      out.addEventListener("click", action);
      tools.append(out);
    }

    function toggle(label, colour, mark, get, set) {
      const out = element("button", "dsn-key");
      out.type = "button";
      const swatch = element("span", "dsn-swatch", mark || "");
      if (colour) swatch.style.background = colour;
      out.append(swatch, document.createTextNode(label));
      out.setAttribute("aria-pressed", "true");
      out.addEventListener("click", () => {
        set(!get());
        out.setAttribute("aria-pressed", String(get()));
        hideTip();
        redraw();
      });
      legend.append(out);
    }

    button("+", "zoom in", () => zoomTime(0.5));
    button("−", "zoom out", () => zoomTime(2));
    button("←", "earlier", () => move(-0.25, 0));
    button("→", "later", () => move(0.25, 0));
    if (data.gap) button("gap", "show the longest gap", showGap);
    button("reset", "show everything", reset);
    tools.append(element("span", "dsn-hint", "Drag to zoom, flat for time alone; shift-drag moves; wheel zooms after a click; double click resets."));
    data.groups.forEach((group, i) => toggle(group.label, group.colour, "", () => shown.groups[i], (on) => { shown.groups[i] = on; }));
    data.kinds.slice(0, 3).forEach((name, i) => {
      if (!data.kindCounts[i]) return;
      toggle(name + " (" + grouped(data.kindCounts[i]) + ")", "", ["•", "×", "▲"][i], () => shown.kinds[i], (on) => { shown.kinds[i] = on; });
    });
    if (acks.count) toggle("data ACK", "", "–", () => shown.acks, (on) => { shown.acks = on; });
    if (data.marks.length) toggle("signals", "", "┊", () => shown.signals, (on) => { shown.signals = on; });
    if (data.events.length) toggle("events", "", "│", () => shown.events, (on) => { shown.events = on; });

    over.addEventListener("pointerdown", pressed);
    over.addEventListener("pointermove", moved);
    over.addEventListener("pointerup", released);
    over.addEventListener("pointercancel", released);
    over.addEventListener("pointerleave", () => { if (!drag) hideTip(); });
    over.addEventListener("wheel", wheeled, { passive: false });
    over.addEventListener("dblclick", reset);
    over.addEventListener("keydown", typed);
    new ResizeObserver(() => { hideTip(); draw(); drawOver(); }).observe(stage);
    host.classList.add("dsn-ready");
    draw();
    host.dsnPlot = {
      view: () => Object.assign({}, view), zoomTo: setView, fit, reset, nearest, describe, draw,
      counts: () => ({ segments: segments.count, acks: acks.count }), box: () => Object.assign({}, box),
    };
  }

  for (const host of document.querySelectorAll(".dsn-plot")) {
    const folded = host.closest("details:not([open])");
    if (folded) folded.addEventListener("toggle", () => build(host), { once: true });
    else build(host);
  }
})();
