// The console's page. It opens one stream (live) and shows what it says; a thing that is looked at
// closely is fetched when the stream says that something has changed. Text only ever becomes text.
"use strict";

const $ = (id) => document.getElementById(id);
const tabs = ["cluster", "leases", "locks", "processes", "queues"];
// What was last heard, by part.
const heard = {};
// Whether it is known who looks: then an administrator may change something here.
let controlled = false;
// Cluster time, and this browser's clock when it was that.
let clock = null;
let source = null;

// --- words -----------------------------------------------------------------------------------

function span(ms) {
  if (ms < 0) ms = 0;
  if (ms < 1000) return `${Math.floor(ms)} ms`;
  if (ms < 60e3) return `${(ms / 1000).toFixed(1)} s`;
  const [d, h, m, s] = [ms / 86400e3, (ms / 3600e3) % 24, (ms / 60e3) % 60, (ms / 1000) % 60].map(Math.floor);
  if (d) return `${d} d ${h} h`;
  return h ? `${h} h ${m} min` : `${m} min ${s} s`;
}
const time = (ms) => new Date(ms).toISOString();
const clusterNow = () => clock && clock.cluster + (performance.now() - clock.here);
const ago = (ms) => `${span(clusterNow() - ms)} ago`;
const number = (n) => (n === null || n === undefined ? "–" : n.toLocaleString("en"));
const bytes = (n) => {
  if (n === null || n === undefined) return "–";
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; n >= 1024 && unit < 4; unit++) n /= 1024;
  return `${unit ? n.toFixed(1) : n} ${units[unit]}`;
};
const holder = (it) => (it.incarnation && it.incarnation !== it.owner ? `${it.owner} (${it.incarnation})` : it.owner);

// --- elements --------------------------------------------------------------------------------

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}
const to = (what, name, text = name) => make("a", { href: `#${what}=${encodeURIComponent(name)}` }, text);

// A cell that counts down by itself.
function remaining(expiresAt, ttl) {
  const cell = make("div", { className: "left" }, make("span"), ttl ? make("progress", { max: 1 }) : null);
  cell.dataset.expires = expiresAt;
  cell.dataset.ttl = ttl || 0;
  countDown(cell);
  return cell;
}
function countDown(cell) {
  const left = Math.max(0, cell.dataset.expires - clusterNow());
  cell.firstChild.textContent = left ? span(left) : "over";
  const part = cell.dataset.ttl > 0 ? left / cell.dataset.ttl : 1;
  cell.classList.toggle("low", part < 0.25);
  if (cell.children[1]) {
    cell.children[1].value = Math.min(1, part);
    cell.children[1].setAttribute("aria-label", `${Math.round(part * 100)} % of its time is left`);
  }
}
setInterval(() => clock && document.querySelectorAll("[data-expires]").forEach(countDown), 200);
setInterval(() => clock && document.querySelectorAll("[data-since]").forEach((cell) => {
  cell.textContent = ago(cell.dataset.since);
}), 1000);
function since(ms) {
  const cell = make("time", { dateTime: time(ms), title: time(ms) }, ago(ms));
  cell.dataset.since = ms;
  return cell;
}

// Rows by key, so that a row that stays keeps its place, its focus and its countdown.
function fill(id, rows, keyOf, cells, empty) {
  const body = $(id);
  const first = !body.dataset.filled;
  body.dataset.filled = "yes";
  const old = new Map([...body.children].map((row) => [row.dataset.key, row]));
  const next = rows.map((it) => {
    const shown = JSON.stringify(it);
    const known = old.get(keyOf(it));
    if (known && known.dataset.shown === shown) return known;
    const row = make("tr", { className: known || first ? "" : "new" }, ...cells(it).map((cell) => {
      const [content, className] = Array.isArray(cell) ? cell : [cell, ""];
      return make("td", { className }, content);
    }));
    row.dataset.key = keyOf(it);
    row.dataset.shown = shown;
    const focused = known && known.contains(document.activeElement);
    if (known) known.replaceWith(row);
    if (focused) row.querySelector("a")?.focus();
    return row;
  });
  const kept = new Set(next);
  [...body.children].forEach((row) => kept.has(row) || row.remove());
  next.forEach((row, n) => body.children[n] === row || body.insertBefore(row, body.children[n] || null));
  if (!next.length) {
    const columns = body.closest("table").tHead.rows[0].cells.length;
    body.append(make("tr", {}, make("td", { className: "empty", colSpan: columns }, empty)));
  }
}
function table(headings, rows, cells) {
  const head = make("tr", {}, ...headings.map((text) => make("th", { scope: "col" }, text)));
  const body = rows.map((row) => make("tr", {}, ...cells(row).map((cell) => make("td", {}, cell ?? "–"))));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
}

// --- the tables ------------------------------------------------------------------------------

const show = {
  cluster(it) {
    const node = it.node;
    if (it.now_ms) clock = { cluster: it.now_ms, here: performance.now() };
    controlled = it.controlled;
    $("where").textContent = node.cluster_id
      ? `${node.name} (${node.role}) of cluster ${node.cluster_id}` : `${node.name || "a node"}: ${node.role}`;
    document.title = `${node.name} – Quorate`;
    $("stale").hidden = it.fresh || !node.cluster_id;
    const alarms = it.alarms.map((alarm) => `${alarm.kind}: ${alarm.text}`);
    if (it.problem) alarms.push(it.problem);
    const text = alarms.join("\n");
    if ($("alarms").dataset.text !== text) {
      $("alarms").dataset.text = text;
      $("alarms").replaceChildren(...alarms.map((line) => make("p", { className: "banner bad" }, line)));
    }
    const facts = [
      ["Role of this node", node.role], ["Term", number(node.term)], ["Applied", number(node.applied)],
      ["Behind its log", number(node.last_log - node.applied)], ["Snapshot at", number(node.snapshot)],
      ["State on disk", bytes(it.disk_bytes)], ["Live leases", number(node.leases)],
      ["Up for", span(node.uptime_ms)], ["Version", node.version],
      ["Digest of the state", node.digest.slice(0, 12) || "–"],
      ["Digest last compared", it.digest_at ? `${it.digest_at.digest.slice(0, 12)} at ${it.digest_at.index}` : "none yet"],
      ["Health", node.healthy ? "well" : "not well"],
    ];
    if ($("facts").children.length !== facts.length) {
      $("facts").replaceChildren(...facts.map(([name]) => make("div", {}, make("dt", {}, name), make("dd"))));
    }
    facts.forEach(([, value], n) => { $("facts").children[n].children[1].textContent = value; });
    fill("rows-members", it.members, (m) => m.id, (m) => [
      `${m.name}${m.here ? " (this one)" : ""}`,
      m.role, [m.client, "mono"], [number(m.reached), "n"], [number(m.lag), "n"],
      m.here || !m.http ? "" : make("a", { href: `http://${m.http}/console/` }, m.http),
    ], "This node belongs to no cluster yet: quorate cluster form, or quorate member add.");
  },
  leases(it) {
    fill("rows-leases", it.rows, (l) => l.key, (l) => [
      to("key", l.key), holder(l), [l.token, "n"], remaining(l.expires_at, l.ttl_ms),
      [span(l.ttl_ms), "n"], [number(l.renewals), "n"],
    ], "Nobody holds a lease here.");
  },
  locks(it) {
    fill("rows-locks", it.rows, (l) => l.key, (l) => {
      const first = l.holders[0];
      const more = l.held > 1 ? ` and ${l.held - 1} more` : "";
      return [
        to("key", l.key), first ? first.owner + more : "nobody", first ? first.mode : "", [first ? first.token : "", "n"],
        first ? remaining(first.expires_at, 0) : "", [number(l.waiters), l.waiters ? "n warn" : "n"],
      ];
    }, "Nobody holds or awaits a lock here.");
  },
  processes(it) {
    const colour = { running: "good", failed: "bad", cancelled: "warn" };
    fill("rows-processes", it.rows, (p) => p.id, (p) => [
      to("process", p.id), [p.state, colour[p.state] || ""], [number(p.events), "n"],
      since(p.updated_at), [p.outcome || p.waits || "", "mono"],
    ], "There is no process here.");
  },
  queues(it) {
    fill("rows-queues", it.rows, (q) => q.name, (q) => [
      to("queue", q.name), [number(q.ready), "n"], q.ready_since ? since(q.ready_since) : "", [number(q.claimed), "n"],
      [number(q.delayed), "n"], [number(q.dead), q.dead ? "n bad" : "n"], [number(q.done), "n"],
    ], "There is no queue here.");
  },
};

function notes(name, it) {
  if (!$(`note-${name}`)) return;
  $(`count-${name}`).textContent = it.problem ? "?" : it.rows.length + (it.more ? "+" : "");
  $(`note-${name}`).textContent = it.problem
    || (it.more ? `The first ${it.rows.length}; say with what the others start to see them.` : "");
}

// --- one thing -------------------------------------------------------------------------------

function endOf(it) {
  switch (it.reason) {
    case "expired": return `it expired, ${span(it.ended_at - it.renewed_at)} after it was last renewed or granted`;
    case "released": return "its holder released it";
    case "superseded": return "the same owner claimed again and got a fresh grant";
    case "reclaimed": return `it was reclaimed by ${it.by}, who took its holder for dead`;
    case "revoked": return `it was revoked by ${it.by}`;
    default: return it.reason;
  }
}

// Asks, does it, and says how it ended. The header is one that no page from elsewhere can send.
function action(text, question, what) {
  const button = make("button", { type: "button" }, text);
  const said = make("span", { className: "note", role: "status" });
  button.addEventListener("click", async () => {
    if (!confirm(question)) return;
    button.disabled = true;
    let words;
    try {
      const headers = { "content-type": "application/json", "x-quorate-console": "act" };
      const answer = await fetch("act", { method: "POST", headers, body: JSON.stringify(what) });
      words = answer.ok ? "done" : await answer.text();
      try { words = JSON.parse(words).problem || words; } catch { /* it is text already */ }
    } catch (error) {
      words = `It may have been done or not, the node does not answer: ${error.message}`;
    }
    said.textContent = ` ${words}`;
    button.disabled = false;
    look();
  });
  return make("span", { className: "act" }, button, said);
}
function revocations(it) {
  if (!controlled) return [];
  const parts = [];
  if (it.lease) {
    const { key, token } = it.lease;
    parts.push(make("p", {}, action("Revoke the lease",
      `Take the lease of ${key} from ${holder(it.lease)}? It is told when it renews; only a check of the token stops it.`,
      { do: "revoke_lease", key, token })));
  }
  for (const h of it.lock ? it.lock.holders : []) {
    parts.push(make("p", {}, action(`Revoke the hold of ${h.owner}`,
      `Take the lock ${it.key} from ${h.owner}? It is told when it renews; only a check of the token stops it.`,
      { do: "revoke_lock", key: it.key, token: h.token })));
  }
  return parts;
}
function itemActions(queue, item, dead) {
  const of = { queue, item };
  return make("span", {},
    dead ? action("Requeue", `Give item ${item} another life?`, { do: "requeue", ...of }) : null,
    action("Remove", `Take item ${item} out of ${queue} for good?`, { do: "cancel", ...of }));
}
function storyOf(it) {
  const lines = [];
  if (it.lease_hidden) {
    lines.push("Leases of this key are not for your token to read.");
  } else if (it.lease) {
    const l = it.lease;
    lines.push(`The lease is held by ${holder(l)} with fencing token ${l.token}, since ${time(l.granted_at)}.`);
    lines.push(l.renewals ? `It was renewed ${number(l.renewals)} times, last at ${time(l.renewed_at)}.` : "It was not renewed yet.");
    lines.push(`Unless it is renewed or released, it ends at ${time(l.expires_at)}.`);
  } else if (it.ended.length) {
    const last = it.ended[0];
    lines.push("Nobody holds the lease: a claim would get it.");
    lines.push(`The last grant, with fencing token ${last.token} of ${holder(last)}, ended at ${time(last.ended_at)}: ${endOf(last)}.`);
  } else {
    lines.push("Nobody holds a lease of this key, and no grant of it is remembered.");
  }
  if (it.lock_hidden) {
    lines.push("Locks of this key are not for your token to read.");
  } else if (it.lock) {
    const who = it.lock.holders.map((h) => `${h.owner} (${h.mode}, token ${h.token})`).join(", ");
    lines.push(who ? `The lock is held by ${who}.` : "Nobody holds the lock.");
    lines.push(it.lock.waiters ? `${number(it.lock.waiters)} wait for it, in this order.` : "Nobody waits for it.");
  }
  return lines;
}
const detail = {
  key(it) {
    const parts = [make("div", { className: "story", id: "story" }, ...storyOf(it).map((line) => make("p", {}, line)))];
    if (it.lease) parts.push(make("h3", {}, "Time left"), remaining(it.lease.expires_at, it.lease.ttl_ms));
    parts.push(...revocations(it));
    if (it.waiters.rows.length) {
      parts.push(make("h3", {}, "Waiters, first in line first"), table(["Who", "Mode", "Asked"], it.waiters.rows,
        (w) => [w.owner, w.mode, since(w.asked_at)]));
    }
    if (it.ended.length) {
      parts.push(make("h3", {}, `Ended grants (${number(it.grants)} grants in all)`), table(["Token", "Holder", "Granted", "Ended", "Why"],
        it.ended, (e) => [e.token, holder(e), time(e.granted_at), time(e.ended_at), endOf(e)]));
    }
    return parts;
  },
  process(it) {
    const p = it.process;
    const events = it.events.rows.toReversed().map((e) => make("li", {},
      make("span", { className: "at" }, time(e.at)), make("strong", {}, e.type), ` #${e.sequence}`,
      e.payload ? make("pre", {}, e.payload) : null));
    return [
      make("div", { className: "story" }, make("p", {}, `It is ${p.state}, registered at ${time(p.created_at)}.`),
        p.waits ? make("p", {}, `It waits for ${p.waits}.`) : null,
        p.outcome ? make("p", {}, `It ended with ${p.outcome}.`) : null),
      make("h3", {}, p.events > events.length ? `The last ${events.length} of ${number(p.events)} events` : "Events, the last one first"),
      make("ol", { className: "time", reversed: true }, ...events),
    ];
  },
  queue(it) {
    const cells = (i) => [i.item, String(i.priority), String(i.attempts), since(i.pushed_at), i.note, i.payload && make("pre", {}, i.payload),
      ...(controlled ? [itemActions(it.name, i.item, i.state === "dead")] : [])];
    const heads = ["Item", "Priority", "Attempts", "Pushed", "Note", "Payload", ...(controlled ? ["Do"] : [])];
    const part = (title, of, none) => [make("h3", {}, title + (of.more ? ` (the first ${of.rows.length})` : "")),
      of.rows.length ? table(heads, of.rows, cells) : make("p", { className: "note" }, none)];
    return [...part("Next in line", it.ready, "No item can be claimed now."), ...part("Dead letters", it.dead, "None was given up.")];
  },
};

let looking = null;
// What stands there: only what differs is drawn again.
let drawn = "";
async function look() {
  const [what, name] = place();
  if (!detail[what] || looking === location.hash) return;
  const asked = (looking = location.hash);
  let parts;
  try {
    const answer = await fetch(`${what}?of=${encodeURIComponent(name)}`);
    const it = await answer.json();
    if (it.now_ms) clock = { cluster: it.now_ms, here: performance.now() };
    const text = asked + JSON.stringify({ ...it, now_ms: 0 });
    if (text === drawn) { looking = null; return; }
    drawn = text;
    parts = answer.ok ? detail[what](it) : [make("p", { className: "bad" }, it.problem)];
  } catch (error) {
    drawn = "";
    parts = [make("p", { className: "bad" }, `The node does not answer: ${error.message}`)];
  }
  looking = null;
  if (asked === location.hash) $("detail").replaceChildren(...parts);
}

// --- where we are ----------------------------------------------------------------------------

function place() {
  const [what, name] = location.hash.slice(1).split(/=(.*)/s);
  if (name !== undefined) try { return [what, decodeURIComponent(name)]; } catch { return [what, name]; }
  return [tabs.includes(what) ? what : "cluster", ""];
}
const home = { key: "leases", process: "processes", queue: "queues" };
function turn() {
  const [what, name] = place();
  const tab = home[what] ? "detail" : what;
  [...tabs, "detail"].forEach((it) => { $(`tab-${it}`).hidden = it !== tab; });
  document.querySelectorAll("[data-tab]").forEach((link) => {
    if (link.dataset.tab === (home[what] || what)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  if (tab !== "detail") return;
  $("back").href = `#${home[what]}`;
  $("h-detail").textContent = name;
  $("detail").replaceChildren();
  drawn = "";
  $("h-detail").focus();
  look();
}

// --- the stream ------------------------------------------------------------------------------

function open() {
  source?.close();
  source = new EventSource(`live?prefix=${encodeURIComponent($("prefix").value)}`);
  source.onopen = () => { $("link").dataset.state = "live"; $("link").textContent = "live"; };
  source.onerror = () => {
    $("link").dataset.state = "lost";
    $("link").textContent = "not connected; trying again";
    // A refused stream does not come back by itself.
    if (source.readyState === EventSource.CLOSED) setTimeout(open, 3000);
  };
  for (const name of Object.keys(show)) {
    source.addEventListener(name, (event) => {
      heard[name] = JSON.parse(event.data);
      if (!heard[name].problem || name === "cluster") show[name](heard[name]);
      notes(name, heard[name]);
      // The cluster's part comes with every look, at least every 1.4 seconds.
      if (name === "cluster") look();
    });
  }
}
let typed = null;
$("prefix").addEventListener("input", () => { clearTimeout(typed); typed = setTimeout(open, 250); });
const explain = () => { if ($("prefix").value) location.hash = `key=${encodeURIComponent($("prefix").value)}`; };
$("explain").addEventListener("click", explain);
$("prefix").addEventListener("keydown", (event) => event.key === "Enter" && explain());
addEventListener("hashchange", turn);
turn();
open();
