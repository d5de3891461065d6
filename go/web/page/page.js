// The status page: draws what the node sends on "events". Names come from other nodes, so they are only ever set as text.
"use strict";

const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const positions = new Map(); // Node ID to its place in the picture, kept from one state to the next.
let state = null;
let previous = null; // The state before.
let chosen = "";
let shape = ""; // Nodes and edges of the picture; it is laid out anew only when these change.
let tailUnit = "";
let tailTimer = 0;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function svg(name, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

const age = (time) => (time ? duration((Date.parse(state.time) - Date.parse(time)) / 1000) : "");

function duration(seconds) {
  if (seconds === undefined) return "";
  seconds = Math.max(0, Math.round(seconds));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let step = 0;
  while (count >= 1000 && step < units.length - 1) { count /= 1000; step += 1; }
  return `${step && count < 10 ? count.toFixed(1) : Math.round(count)} ${units[step]}`;
}

const traffic = (total, perSecond) => `${bytes(total)}, ${bytes(perSecond)}/s`;

// rate is the growth of a link's count since the state before this one, by the node's clock.
function rate(link, key) {
  const was = previous && previous.links.find((l) => l.up && l.peer === link.peer);
  const seconds = previous ? (Date.parse(state.time) - Date.parse(previous.time)) / 1000 : 0;
  return was && seconds > 0 && link[key] >= was[key] ? (link[key] - was[key]) / seconds : 0;
}

// fill replaces the rows of a table. Columns are [heading, kind]; a cell is a text, {text, className} or an element.
function fill(table, columns, rows, empty) {
  const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.key : "";
  const head = element("tr");
  for (const [heading] of columns) head.append(element("th", { scope: "col" }, heading));
  const body = element("tbody");
  for (const { key, cells } of rows) {
    const row = element("tr", key ? { "data-row": key } : {});
    if (key && key === chosen) row.className = "chosen";
    cells.forEach((cell, i) => {
      const td = element("td", columns[i][1] ? { class: columns[i][1] } : {});
      if (cell instanceof Node) td.append(cell);
      else if (cell && typeof cell === "object") td.append(element("span", { class: cell.className }, cell.text));
      else td.append(String(cell ?? ""));
      row.append(td);
    });
    body.append(row);
  }
  table.replaceChildren(element("thead", {}, head), body);
  if (!rows.length) table.replaceChildren(element("caption", {}, empty));
  if (focused) {
    const again = table.querySelector(`[data-key="${CSS.escape(focused)}"]`);
    if (again) again.focus();
  }
}

// view picks from what the node sends: "version", "topology" and "links" are the replies of the control commands of those names.
function view(raw) {
  const { version, topology, links } = raw;
  const up = links.links.map((l) => ({
    peer: l.node, up: true, cost: l.cost, heard_s: l.heard_s,
    sent: l.sent_bytes || 0, received: l.received_bytes || 0,
  }));
  const down = links.backends
    .filter((b) => b.kind !== "listener" && !(b.peers || []).length)
    .map((b) => ({ address: b.backend, up: false, cost: b.cost, error: b.last_error ? b.last_error.text : b.state }));
  return {
    node: version.node, version: version.version, started: version.started, time: version.time,
    nodes: topology.nodes.map((n) => ({ id: n.node, reachable: n.reachable, next: n.via, cost: n.cost ?? 0, parent: n.parent })),
    edges: topology.edges, services: topology.services,
    links: [...up, ...down], units: raw.units, units_total: raw.units_total,
    certificates: (links.tls || []).filter((t) => t.expiry),
  };
}

function draw() {
  byId("title").textContent = state.node;
  document.title = `${state.node} · Receptor`;
  const reachable = state.nodes.filter((n) => n.reachable).length;
  const running = state.units.filter((u) => u.state === "Running").length;
  byId("summary").textContent =
    `version ${state.version || "unknown"} · up ${age(state.started)} · ${reachable} of ${state.nodes.length} nodes reachable · ` +
    `${state.links.filter((l) => l.up).length} links · ${state.units_total} units, ${running} running`;

  fill(byId("nodes"), [["Node"], ["Next hop"], ["Cost", "number"], ["Services"]],
    state.nodes.map((n) => ({
      key: n.id,
      cells: [n.id,
        n.id === state.node ? "this node" : n.reachable ? n.next : { text: "unreachable", className: "bad" },
        n.reachable ? n.cost : "",
        state.services.filter((s) => s.node === n.id).map((s) => s.service).join(", ")],
    })), "No nodes are known.");

  fill(byId("links"), [["Peer"], ["State"], ["Cost", "number"], ["Sent", "number"], ["Received", "number"], ["Last heard", "number"]],
    state.links.map((l) => ({
      key: "",
      cells: [l.peer || l.address,
        l.up ? { text: "up", className: "good" } : { text: l.error || "down", className: "bad" },
        l.cost, l.up ? traffic(l.sent, rate(l, "sent")) : "", l.up ? traffic(l.received, rate(l, "received")) : "",
        l.up ? duration(l.heard_s) : ""],
    })), "This node has no links.");

  const stateClass = { Succeeded: "good", Failed: "bad", Canceled: "warn" };
  fill(byId("units"), [["Unit"], ["Type"], ["Node"], ["State"], ["Age", "number"], ["Output", "number"], ["Detail"]],
    state.units.map((u) => {
      const open = element("button", { type: "button", "data-key": `unit-${u.id}`, "aria-label": `show the output of unit ${u.id}` }, u.id);
      open.addEventListener("click", () => showTail(u.id));
      return { key: "", cells: [open, u.type, u.node, { text: u.state, className: stateClass[u.state] || "" }, age(u.created), bytes(u.size), u.detail] };
    }), "There are no units of work.");
  if (state.units_total > state.units.length) {
    byId("units").prepend(element("caption", {}, `The newest ${state.units.length} of ${state.units_total}.`));
  }

  fill(byId("services"), [["Service"], ["Node"], ["Type"], ["Heard", "number"]],
    state.services.map((s) => ({ key: "", cells: [s.service, s.node, [(s.tags || {}).type, ...(s.work || []).map((w) => w.type)].filter(Boolean).join(", "), duration(s.heard_s)] })),
    "No services are advertised.");

  fill(byId("certificates"), [["Profile"], ["Side"], ["Nodes"], ["Valid until", "number"], ["Remarks"]],
    state.certificates.map((c) => {
      const days = Math.floor((Date.parse(c.expiry) - Date.parse(state.time)) / 86400000);
      const text = `${c.expiry.slice(0, 10)} (${days < 0 ? "expired" : `${days} days`})`;
      return { key: "", cells: [c.name, c.server ? "server" : "client", (c.node_ids || []).join(", "), { text, className: days < 0 ? "bad" : days < 30 ? "warn" : "good" }, c.error ? { text: c.error, className: "bad" } : ""] };
    }), "No TLS profiles are configured.");

  picture();
}

function picture() {
  const canvas = byId("mesh");
  const now = JSON.stringify([state.nodes.map((n) => n.id), state.edges.map((e) => [e.a, e.b])]);
  if (now !== shape) { layout(); shape = now; }
  const routed = new Set(state.nodes.filter((n) => n.reachable && n.next).map((n) => n.next));
  const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.node : "";
  const parts = [];
  for (const e of state.edges) {
    const [a, b] = [positions.get(e.a), positions.get(e.b)];
    const own = (e.a === state.node && routed.has(e.b)) || (e.b === state.node && routed.has(e.a));
    parts.push(svg("line", { class: `edge${own ? " route" : ""}${e.state === "ok" ? "" : " disagree"}`, x1: a.x, y1: a.y, x2: b.x, y2: b.y }));
    const label = e.cost_ab === e.cost_ba ? `${e.cost_ab}` : `${e.cost_ab ?? "?"} ≠ ${e.cost_ba ?? "?"}`;
    parts.push(svg("text", { class: "cost", x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 - 4, "aria-hidden": "true" }, label));
  }
  for (const n of state.nodes) {
    const p = positions.get(n.id);
    const kind = n.id === state.node ? " self" : n.reachable ? "" : " away";
    const route = n.id === state.node ? "this node" : n.reachable ? `reachable by ${n.next} at cost ${n.cost}` : "unreachable";
    const g = svg("g", { class: `node${kind}${n.id === chosen ? " chosen" : ""}`, tabindex: "0", role: "button", "data-node": n.id, "aria-label": `${n.id}, ${route}` });
    g.append(svg("circle", { cx: p.x, cy: p.y, r: n.id === state.node ? 11 : 8 }), svg("text", { x: p.x, y: p.y + 24, "aria-hidden": "true" }, n.id));
    g.addEventListener("click", () => choose(n.id));
    g.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(n.id); } });
    parts.push(g);
  }
  canvas.replaceChildren(...parts);
  labels(canvas);
  if (focused) {
    const again = canvas.querySelector(`[data-node="${CSS.escape(focused)}"]`);
    if (again) again.focus();
  }
}

// labels keeps them inside the picture and off each other: the names of this node, of nodes that are away and of neighbours go first,
// each below its node or above it. A name for which there is no place is shown while its node is pointed at, focused or chosen.
function labels(canvas) {
  const width = canvas.viewBox.baseVal.width;
  const neighbours = new Set(state.edges.flatMap((e) => (e.a === state.node ? [e.b] : e.b === state.node ? [e.a] : [])));
  const rank = (n) => (n.id === state.node ? 0 : n.id === chosen ? 1 : !n.reachable ? 2 : neighbours.has(n.id) ? 3 : 4);
  const taken = state.nodes.map((n) => positions.get(n.id)).map((p) => ({ left: p.x - 8, right: p.x + 8, top: p.y - 8, bottom: p.y + 8 }));
  const place = (text, ...heights) => {
    const size = text.getBBox(), half = size.width / 2 + 2;
    const x = Math.max(half, Math.min(width - half, Number(text.getAttribute("x"))));
    text.setAttribute("x", x);
    for (const y of heights) {
      const box = { left: x - half, right: x + half, top: y - 11, bottom: y + 3 };
      if (taken.some((t) => box.left < t.right && t.left < box.right && box.top < t.bottom && t.top < box.bottom)) continue;
      text.setAttribute("y", y);
      taken.push(box);
      return;
    }
    text.classList.add("crowded");
  };
  const texts = new Map([...canvas.querySelectorAll(".node")].map((g) => [g.dataset.node, g.querySelector("text")]));
  for (const n of [...state.nodes].sort((a, b) => rank(a) - rank(b))) {
    const y = positions.get(n.id).y;
    place(texts.get(n.id), y + 24, y - 14);
  }
  for (const text of canvas.querySelectorAll(".cost")) place(text, Number(text.getAttribute("y")));
}

// layout places the nodes by springs, from where they were before; new ones start on a circle.
function layout() {
  const canvas = byId("mesh"), margin = 40;
  const width = Math.max(300, canvas.clientWidth || 800), height = Math.round(Math.max(320, Math.min(560, Math.max(0.5 * width, 18 * state.nodes.length))));
  canvas.setAttribute("viewBox", `0 0 ${width} ${height}`); // One unit is one pixel: labels are as large as the text around.
  const ids = state.nodes.map((n) => n.id);
  for (const id of [...positions.keys()]) if (!ids.includes(id)) positions.delete(id);
  ids.forEach((id, i) => {
    const angle = (2 * Math.PI * i) / ids.length;
    if (!positions.has(id)) positions.set(id, { x: width / 2 + 0.4 * width * Math.cos(angle), y: height / 2 + 0.4 * height * Math.sin(angle) });
  });
  const list = ids.map((id) => positions.get(id));
  const index = new Map(ids.map((id, i) => [id, i]));
  const edges = state.edges.map((e) => [index.get(e.a), index.get(e.b)]);
  const ideal = 0.8 * Math.sqrt(((width - 2 * margin) * (height - 2 * margin)) / Math.max(1, ids.length));
  const steps = Math.max(20, Math.min(300, Math.floor(2e7 / (ids.length * ids.length + 1))));
  for (let step = 0; step < steps; step += 1) {
    const heat = (1 - step / steps) * 40;
    const moves = list.map(() => ({ x: 0, y: 0 }));
    for (let i = 0; i < list.length; i += 1) {
      for (let j = i + 1; j < list.length; j += 1) {
        let dx = list[i].x - list[j].x, dy = list[i].y - list[j].y;
        if (!dx && !dy) { dx = 0.1 * (i + 1); dy = 0.1; }
        const push = (ideal * ideal) / (dx * dx + dy * dy);
        moves[i].x += dx * push; moves[i].y += dy * push; moves[j].x -= dx * push; moves[j].y -= dy * push;
      }
    }
    for (const [i, j] of edges) {
      const dx = list[i].x - list[j].x, dy = list[i].y - list[j].y, pull = Math.hypot(dx, dy) / ideal;
      moves[i].x -= dx * pull; moves[i].y -= dy * pull; moves[j].x += dx * pull; moves[j].y += dy * pull;
    }
    list.forEach((p, i) => {
      const m = moves[i], far = Math.hypot(m.x, m.y) || 1;
      p.x = Math.min(width - margin, Math.max(margin, p.x + (m.x / far) * Math.min(far, heat)));
      p.y = Math.min(height - margin, Math.max(margin, p.y + (m.y / far) * Math.min(far, heat)));
    });
  }
  for (const p of list) { p.x = Math.round(p.x); p.y = Math.round(p.y); }
}

function choose(id) {
  chosen = id === chosen ? "" : id;
  draw();
  const row = byId("nodes").querySelector("tr.chosen");
  if (row) row.scrollIntoView({ block: "nearest" });
}

async function showTail(id) {
  tailUnit = id;
  byId("tail").hidden = false;
  byId("tail-heading").textContent = `Output of unit ${id}, its last bytes`;
  await readTail();
}

async function readTail() {
  clearTimeout(tailTimer);
  const id = tailUnit;
  if (!id) return;
  try {
    const answer = await fetch(`units/${encodeURIComponent(id)}/tail`, { cache: "no-store" });
    const text = await answer.text();
    if (id !== tailUnit) return;
    const box = byId("tail-text");
    const atEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 4;
    box.textContent = text || (answer.ok ? "No output yet." : `The node answers ${answer.status}.`);
    if (atEnd) box.scrollTop = box.scrollHeight;
  } catch {
    byId("tail-text").textContent = "The node does not answer.";
  }
  const unit = state.units.find((u) => u.id === id);
  if (unit && (unit.state === "Running" || unit.state === "Pending")) tailTimer = setTimeout(readTail, 1000);
}

byId("tail-close").addEventListener("click", () => { tailUnit = ""; byId("tail").hidden = true; });

function news(before) {
  if (!before) return;
  const was = new Map(before.nodes.map((n) => [n.id, n.reachable]));
  const told = [];
  for (const n of state.nodes) if (n.reachable !== (was.get(n.id) ?? false)) told.push(`${n.id} is ${n.reachable ? "reachable" : "unreachable"}`);
  if (told.length) byId("news").textContent = told.slice(0, 5).join(", ");
}

function live(text, className) {
  const badge = byId("live");
  if (badge.textContent !== text) badge.textContent = text;
  badge.className = `badge ${className}`;
}

addEventListener("resize", () => {
  if (!state) return;
  shape = "";
  picture();
});

const source = new EventSource("events");
source.addEventListener("state", (event) => {
  previous = state;
  state = view(JSON.parse(event.data));
  live("live", "good");
  draw();
  news(previous);
  if (tailUnit) readTail();
});
source.addEventListener("error", () => live(source.readyState === EventSource.CLOSED ? "disconnected: reload the page" : "disconnected, trying again", "bad"));
