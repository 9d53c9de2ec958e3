// The console's page: what the server tells becomes elements, whose texts are always texts. No part of it is built.
"use strict";

const $ = (id) => document.getElementById(id);
const PRIORITIES = ["high", "medium", "low"];
const RANK = { unread: 4, red: 3, yellow: 2, green: 1, none: 0 };
const AT_ONCE = 50; // histories that are asked for together
const SILENCE = 30_000; // ms without a word after which a connection is given up
const TOKEN = "backpressure-token";

let about = null; // what the server is, and what may be done
let start = null; // which run of it the places of queues belong to
let look = null; // the latest look, without its queues
let rows = []; // the queues, by place
let parts = []; // the elements that show them
let opened = null; // the queue whose detail is shown
let chosenZone = "all";
let view = "queues";
let connected = false;
let lostAt = null;
let lostWhy = "";
const histories = new Map(); // by place: {point, backlogs}
const visible = new Set(); // places on the screen
const wanted = new Set(); // places whose history is to be asked for
const outdated = new Set(); // places that are not on the screen, and not shown as they are

// Elements and words

function el(tag, about = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(about)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null).map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const whole = new Intl.NumberFormat("en");
const number = (value) => (value === null || value === undefined ? "–" : whole.format(value));
const rate = (value) => `${whole.format(Math.round(value * 10) / 10)}/s`;

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return seconds === 0 ? "0 s" : `${Math.round(seconds * 1000)} ms`;
  if (seconds < 100) return `${Math.round(seconds * 10) / 10} s`;
  if (seconds < 6000) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.round(seconds / 360) / 10} h`;
  return `${Math.round(seconds / 86400)} d`;
}

const clock = (seconds) =>
  new Date((seconds + skew()) * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const moment = (seconds) => new Date((seconds + skew()) * 1000).toLocaleString();
// By how much this browser's clock is ahead of the server's; measured at each look.
let ahead = 0;
const skew = () => (Math.abs(ahead) > 5 ? ahead : 0);
const now = () => Date.now() / 1000 - ahead;

const zoneOf = (row) =>
  row.problem ? "unread" : PRIORITIES.map((p) => row.advice[p][0] ?? "none").reduce((a, b) => (RANK[a] >= RANK[b] ? a : b));

// Where a history begins to be shown: once it is known, but a few minutes before now at least.
const beginning = (values) => {
  const first = values.findIndex((value) => value !== null);
  return Math.max(0, Math.min(first < 0 ? values.length : first, values.length - 30));
};

// The connection

class Refused extends Error {}

async function ask(path, options = {}) {
  const answer = await fetch(path, { cache: "no-store", ...options });
  if (!answer.ok) throw new Refused((await answer.text()).trim() || `the server answered ${answer.status}`);
  return answer;
}

const json = async (path, options) => (await ask(path, options)).json();
const query = (path, parameters) => `${path}?${new URLSearchParams({ start, ...parameters })}`;

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = ""; ; ) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
      const event = {};
      for (const line of text.slice(0, end).split("\n")) {
        const [, name, rest] = /^(\w*): ?(.*)$/.exec(line) ?? [];
        if (name) event[name] = rest;
      }
      yield event;
    }
  }
}

let abort = null;
let wake = () => {};

async function listen() {
  for (let pause = 1000; ; pause = Math.min(2 * pause, 15_000)) {
    let timer;
    const alive = () => {
      clearTimeout(timer);
      timer = setTimeout(() => abort.abort(), SILENCE);
    };
    try {
      abort = new AbortController();
      alive();
      about = await json("about");
      const answer = await ask("stream", { signal: abort.signal });
      for await (const event of events(answer.body)) {
        alive();
        if (event.event === "start") await begin(JSON.parse(event.data));
        else if (event.event === "all" || event.event === "look") take(event.event, JSON.parse(event.data));
        pause = 1000;
      }
      lost("the server ended the connection");
    } catch (error) {
      lost(error instanceof Refused ? error.message : "the server does not answer");
    }
    clearTimeout(timer);
    if (document.hidden) await new Promise((resolve) => (wake = resolve));
    else await new Promise((resolve) => setTimeout((wake = resolve), pause * (0.8 + 0.4 * Math.random())));
  }
}

async function begin(given) {
  if (start !== null && start !== given) {
    // Another run: its queues may be others, at other places.
    close();
    rows = [];
    histories.clear();
    forgetToken();
  }
  start = given;
  $("act").hidden = !(about.control && look?.fleet);
}

function lost(why) {
  connected = false;
  lostAt ??= new Date();
  lostWhy = why;
  showLink();
}

function showLink() {
  const link = $("link");
  document.body.classList.toggle("lost-link", !connected);
  link.className = connected ? "live" : lostAt ? "lost" : "";
  if (connected) put(link, "live");
  else if (lostAt) {
    const since = lostAt.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
    const what = navigator.onLine ? `${lostWhy}: does backpressure serve run?` : "this device is offline: connect it.";
    put(link, `no connection since ${since}; ${what} It tries again by itself.`);
  }
}

// Looks

function take(kind, told) {
  const { rows: changed, queues, ...rest } = told;
  ahead = Date.now() / 1000 - told.at;
  const members = look?.fleet?.members;
  look = { ...look, ...rest };
  connected = true;
  lostAt = null;
  if (kind === "all") {
    if (queues.length !== parts.length || rows.length === 0) build(queues);
    rows = queues;
    histories.clear(); // a frame may have been missed
    visible.forEach((place) => wanted.add(place));
    rows.forEach((_, place) => renew(place));
    reopen();
  } else {
    for (const [place, row] of Object.entries(changed)) {
      rows[place] = row;
      renew(Number(place));
    }
    // Whether a circuit is closed or unknown is told by whether anybody told of it.
    if (members !== look.fleet?.members) rows.forEach((_, place) => renew(place));
  }
  follow();
  visible.forEach(showAge);
  whenIdle(catchUp);
  showLink();
  showZones();
  showBanner();
  showProblems();
  $("act").hidden = !(about.control && look.fleet);
  put($("server"), `${look.server} · statistics ${look.statistics}`);
  arrange(false);
  askHistories();
  if (opened) opened.follow();
  if (view !== "queues") refresh();
}

// Appends what this look says to the histories that are known; a point is the largest of its step.
function follow() {
  for (const [place, history] of histories) {
    extend(history, "backlogs", readable(place) ? rows[place].backlog : null);
    if (visible.has(place)) drawTrend(place);
  }
  if (opened?.history) {
    extend(opened.history, "oldest", readable(opened.place) ? rows[opened.place].oldest : null);
    extend(opened.history, "backlogs", readable(opened.place) ? rows[opened.place].backlog : null);
  }
}

const readable = (place) => !look.problem && !rows[place].problem;

function extend(history, name, value) {
  const values = history[name];
  const known = history.points?.[name] ?? history.point;
  for (let point = Math.max(known, look.point - look.points); point < look.point; point++) {
    values.shift();
    values.push(null);
  }
  (history.points ??= {})[name] = look.point;
  const last = values.length - 1;
  if (value !== null && !(values[last] >= value && values[last] !== null)) values[last] = value;
}

let asking = false;

async function askHistories() {
  if (asking || wanted.size === 0 || !connected) return;
  asking = true;
  try {
    const places = [...wanted].slice(0, AT_ONCE);
    const told = await json(query("histories", { queues: places.join(",") }));
    for (const place of places) {
      wanted.delete(place);
      histories.set(place, { point: told.point, backlogs: told.backlogs[place] });
      drawTrend(place);
    }
  } catch {
    wanted.clear(); // the connection tells what is wrong
  }
  asking = false;
  if (wanted.size) askHistories();
}

// The list

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const place = Number(entry.target.dataset.place);
    if (!entry.isIntersecting) visible.delete(place);
    else {
      visible.add(place);
      show(place);
      if (histories.has(place)) drawTrend(place);
      else wanted.add(place);
    }
  }
  askHistories();
}, { rootMargin: "300px" });

function build(queues) {
  seen.disconnect();
  visible.clear();
  wanted.clear();
  parts = queues.map((row, place) => {
    const cell = (label, name, ...more) => el("span", { role: "cell", class: name, "data-label": label }, ...more);
    const name = el("button", { class: "name", dir: "auto", "aria-expanded": "false", onclick: () => toggle(place) }, row.name);
    const note = el("span", { class: "note", hidden: true });
    const made = {
      name, note,
      backlog: cell("waiting", "number"), oldest: cell("oldest", "number"),
      trend: el("canvas", { class: "trend", "aria-hidden": "true" }),
      high: el("span", { class: "zone" }), medium: el("span", { class: "zone" }), low: el("span", { class: "zone" }),
      circuit: cell("circuit", "circuit"), read: cell("read", "read number"),
    };
    made.row = el(
      "div", { role: "row", class: "row", "data-place": place },
      el("span", { role: "cell", class: "who" }, name, note), made.backlog, made.oldest,
      el("span", { role: "cell" }, made.trend), cell("high", "", made.high), cell("medium", "", made.medium), cell("low", "", made.low),
      made.circuit, made.read,
    );
    seen.observe(made.row);
    return made;
  });
  const which = parts.map((_, place) => el("option", { value: place }, queues[place].name));
  $("which").replaceChildren(...which);
  order = null;
}

function renew(place) {
  if (visible.has(place)) show(place);
  else outdated.add(place);
}

// Safari does not tell when it is idle.
const whenIdle = window.requestIdleCallback?.bind(window) ?? ((work) => setTimeout(() => {
  const end = performance.now() + 8;
  work({ timeRemaining: () => end - performance.now() });
}, 50));

// What is not on the screen is shown as it is when nothing else is to be done: a look must not halt a scroll.
function catchUp(idle) {
  for (const place of outdated) {
    if (idle.timeRemaining() < 2) return void whenIdle(catchUp);
    show(place);
  }
}

function show(place) {
  outdated.delete(place);
  const row = rows[place];
  const { row: element, name, note, backlog, oldest, circuit, ...rest } = parts[place];
  put(name, row.name);
  put(backlog, number(row.backlog));
  put(oldest, duration(row.oldest));
  oldest.classList.toggle("stale", row.target !== null && row.oldest > row.target);
  for (const priority of PRIORITIES) {
    const [zone, word] = row.advice[priority];
    put(rest[priority], zone ? `${zone} ${word}` : word);
    rest[priority].className = `zone ${zone ?? "none"}`;
  }
  put(circuit, circuitWord(row));
  circuit.classList.toggle("stale", hasOpen(row));
  note.hidden = !row.problem && row.mode !== "observe";
  put(note, row.problem ?? (row.mode === "observe" ? "observed only: producers are told to go" : ""));
  const zone = zoneOf(row);
  if (element.dataset.zone !== zone) {
    element.dataset.zone = zone;
    element.className = `row ${zone}`;
  }
  showAge(place);
}

function circuitWord(row) {
  if (!look.fleet || look.fleet.members === null) return "unknown";
  if (!hasOpen(row)) return look.fleet.members ? "closed" : "no producers";
  const { states, of, probe } = row.producers;
  const told = Object.entries(states).map(([state, count]) => `${state.replace("_", "-")} in ${count} of ${of}`).join(", ");
  return probe === null ? told : `${told}, a job goes ${probe > now() ? `at ${clock(probe)}` : "now"}`;
}

const passing = () => (look.fleet?.switches ?? []).some((one) => one.kind !== "circuit" && one.until > now());
const hasOpen = (row) => row.producers !== null && Object.keys(row.producers.states).length > 0;

function showAge(place) {
  const age = look.ages[place];
  const { read } = parts[place];
  put(read, age === null ? "never" : age < 1.95 ? "now" : `${duration(age)} ago`);
  read.classList.toggle("stale", Boolean(rows[place].problem || look.problem));
}

let shades = null; // colours of the style sheet, read once for each theme

function shade(name) {
  shades ??= getComputedStyle(document.documentElement);
  return shades.getPropertyValue(`--${name}`).trim();
}

function drawTrend(place) {
  const history = histories.get(place);
  const canvas = parts[place].trend;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (!history || !width) return;
  const scale = devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const values = history.backlogs.slice(beginning(history.backlogs));
  const top = Math.max(1, ...values);
  const x = (index) => (index / (values.length - 1)) * (width - 2) + 1;
  const y = (value) => height - 2 - (value / top) * (height - 4);
  pen.strokeStyle = shade("chart");
  pen.fillStyle = shade("chart-fill");
  pen.lineWidth = 1.5;
  for (let from = 0; from < values.length; from++) {
    if (values[from] === null) continue;
    let to = from;
    while (to + 1 < values.length && values[to + 1] !== null) to++;
    pen.beginPath();
    pen.moveTo(x(from), y(values[from]));
    for (let index = from; index <= to; index++) pen.lineTo(x(index), y(values[index]));
    if (from === to) pen.lineTo(x(from) + 1.5, y(values[from]));
    pen.stroke();
    pen.lineTo(x(to), height);
    pen.lineTo(x(from), height);
    pen.fill();
    from = to;
  }
}

// Which queues are shown, and in which order

let order = null;
let arranged = 0;

function arrange(asked) {
  const by = $("order").value;
  // What is being read or typed in must not move away; and twice a second nobody could read it.
  const moves = !opened && !$("rows").contains(document.activeElement) && Date.now() - arranged > 5000;
  const text = $("find").value.trim().toLowerCase();
  const filtered = text !== "" || chosenZone !== "all";
  if (!asked && order !== null && !moves) return;
  if (!asked && order !== null && by === "given" && !filtered) return;
  arranged = Date.now();
  const places = rows.map((_, place) => place).filter((place) => {
    const row = rows[place];
    return row.name.toLowerCase().includes(text) && (chosenZone === "all" || zoneOf(row) === chosenZone);
  });
  const keys = {
    worst: (place) => [-RANK[zoneOf(rows[place])], -(rows[place].backlog ?? 0)],
    backlog: (place) => [-(rows[place].backlog ?? -1), 0],
    oldest: (place) => [-(rows[place].oldest ?? -1), 0],
  };
  if (by === "name") places.sort((a, b) => rows[a].name.localeCompare(rows[b].name));
  else if (by !== "given") {
    const keyed = new Map(places.map((place) => [place, keys[by](place)]));
    places.sort((a, b) => keyed.get(a)[0] - keyed.get(b)[0] || keyed.get(a)[1] - keyed.get(b)[1] || a - b);
  }
  if (opened && !places.includes(opened.place)) close();
  const next = places.join();
  if (next !== order) {
    order = next;
    const elements = places.map((place) => parts[place].row);
    if (opened) elements.splice(places.indexOf(opened.place) + 1, 0, opened.element);
    $("rows").replaceChildren(...elements);
  }
  const none = $("none");
  none.hidden = places.length > 0;
  $("table").hidden = places.length === 0;
  if (places.length === 0) {
    none.replaceChildren("No queue is like that. ", el("button", { onclick: showEvery }, "Show all queues"));
  }
}

function showEvery() {
  $("find").value = "";
  chosenZone = "all";
  showZones();
  arrange(true);
}

function showZones() {
  const counts = { all: rows.length, unread: 0, red: 0, yellow: 0, green: 0 };
  for (const row of rows) counts[zoneOf(row)]++;
  const words = { all: "all", unread: "unreadable", red: "red", yellow: "yellow", green: "green" };
  const zones = $("zones");
  if (!zones.children.length) {
    for (const zone of Object.keys(words)) {
      const choose = () => {
        chosenZone = zone;
        showZones();
        arrange(true);
      };
      zones.append(el("button", { "data-zone": zone, onclick: choose }));
    }
  }
  for (const button of zones.children) {
    const zone = button.dataset.zone;
    put(button, `${number(counts[zone])} ${words[zone]}`);
    button.setAttribute("aria-pressed", String(zone === chosenZone));
    button.hidden = zone === "unread" && counts.unread === 0 && chosenZone !== zone;
  }
  put($("tab-queues"), `Queues (${number(rows.length)})`);
  const members = look.fleet?.members ?? null;
  put($("tab-fleet"), members === null ? "Fleet" : `Fleet (${number(members)})`);
  document.title = counts.red + counts.unread ? `(${counts.red + counts.unread}) backpressure` : "backpressure";
}

// What is switched, and what is wrong

function told(element, items, make) {
  // Said anew only if it is new: screen readers read it out.
  const key = JSON.stringify(items);
  if (element.dataset.key === key) return;
  element.dataset.key = key;
  element.replaceChildren(...items.map(make));
}

function sentence(switched) {
  if (switched.kind === "override") return "Manual override is on: every job goes at once";
  if (switched.kind === "emergency") return "Emergency mode is on: every job goes at once";
  const done = { open: "is forced open: its jobs are refused", close: "is being closed", reset: "is being reset" };
  return `The circuit of ${switched.queue} ${done[switched.action]}`;
}

function showBanner() {
  const fleet = look.fleet;
  const switched = (fleet?.switches ?? []).filter((one) => one.until > now());
  const items = [...look.notes.map((note) => ({ note })), ...switched];
  told($("banner"), items, (item) => {
    if (item.note) return el("p", {}, el("span", {}, `By the configuration: ${item.note}`));
    const ends = about.control && item.action !== "close" && item.action !== "reset";
    return el(
      "p", {},
      el("span", {}, `${sentence(item)} in the fleet ${fleet.name}, until ${clock(item.until)}, by ${item.by}: “${item.reason}”`),
      el("span", { class: "left", "aria-hidden": "true", "data-until": item.until }),
      ends ? el("button", { onclick: () => offer(item.kind, item.kind === "circuit" ? "close" : "off", item.queue) }, "End…") : null,
    );
  });
  for (const left of document.querySelectorAll(".left")) put(left, `${duration(Math.max(0, left.dataset.until - now()))} left`);
}

function showProblems() {
  const fleet = look.fleet;
  const items = [];
  if (look.problem) items.push({ text: look.problem });
  if (fleet?.problem) {
    const since = fleet.read === null ? "" : ` since ${clock(fleet.read)}; switches that were known hold until their own time`;
    items.push({ text: `The fleet ${fleet.name} cannot be read${since}: ${fleet.problem}` });
  }
  for (const problem of fleet?.problems ?? []) items.push({ text: `The fleet ${fleet.name}: ${problem}` });
  const errors = Object.entries(look.errors);
  if (errors.length) {
    items.push({ quiet: true, text: `Failed reads since the start: ${errors.map(([name, count]) => `${name} ${number(count)}`).join(", ")}` });
  }
  told($("problems"), items, (item) => el("li", { class: item.quiet ? "told" : "" }, item.text));
}

setInterval(() => {
  if (!look) return;
  if (connected && now() - look.at > 10) put($("link"), `the server has not looked at the queues since ${clock(look.at)}: see its log`);
  else showLink();
  showBanner();
}, 1000);

// One queue

function toggle(place) {
  const was = opened?.place;
  close();
  if (was !== place) openDetail(place);
}

function close() {
  if (!opened) return;
  const { place, element, charts } = opened;
  charts.forEach((chart) => chart.destroy());
  parts[place].name.setAttribute("aria-expanded", "false");
  element.remove();
  opened = null;
}

async function openDetail(place) {
  const name = parts[place].name;
  const cell = el("div", { role: "cell", "aria-colspan": "9" }, el("p", { class: "faint" }, "Asking the server…"));
  const element = el("div", { role: "row", class: "detail", id: "detail" }, cell);
  opened = { place, element, charts: [], history: null, follow() {} };
  const mine = opened;
  name.setAttribute("aria-expanded", "true");
  name.setAttribute("aria-controls", "detail");
  parts[place].row.after(element);
  try {
    const asked = await json(query("queue", { queue: place }));
    if (opened !== mine) return;
    fill(mine, cell, asked);
  } catch (error) {
    cell.replaceChildren(el("p", { class: "stale" }, `It cannot be shown: ${error.message}. Close it and open it again.`));
  }
}

// What was missed while there was no connection is asked for again.
async function reopen() {
  const mine = opened;
  if (!mine?.history) return;
  const told = await json(query("queue", { queue: mine.place })).catch(() => null);
  if (told && opened === mine) mine.history = told;
}

function fill(detail, cell, asked) {
  const { place } = detail;
  detail.history = asked;
  const bounds = el("select", { "aria-label": "Whose thresholds" }, ...PRIORITIES.map((p) => el("option", { selected: p === "medium" }, p)));
  const hint = el("p", { class: "bounds" });
  const waiting = el("div", { class: "chart", role: "img" });
  const oldest = el("div", { class: "chart", role: "img" });
  const untold = el("p", { class: "bounds" });
  const facts = el("dl", { class: "facts" });
  const target = rows[place].target;
  cell.replaceChildren(
    el(
      "div", { class: "charts" },
      el("figure", {}, el("figcaption", {}, "Waiting jobs", asked.bounds ? el("label", {}, "thresholds of ", bounds) : null), waiting, hint),
      el("figure", {}, el("figcaption", {}, "Age of the oldest job"), oldest,
        untold),
    ),
    facts,
    ...explainer(place),
  );
  const series = (values) => {
    const from = beginning(detail.history.backlogs);
    return [values.slice(from).map((_, index) => look.at - (values.length - 1 - from - index) * look.step), values.slice(from)];
  };
  const linesOf = () => {
    const own = asked.bounds?.[bounds.value];
    if (!own) return [];
    return [["green_max", "green"], ["yellow_max", "yellow"], ["shed_at", "red"], ["red_max", "red"]]
      .filter(([bound]) => bound in own).map(([bound, colour]) => ({ at: own[bound], label: bound, colour }));
  };
  let lines = linesOf();
  const draw = () => {
    detail.charts.forEach((chart) => chart.destroy());
    lines = linesOf();
    put(hint, lines.map((line) => `${line.label} ${number(line.at)}`).join(" · "));
    const ages = target === null ? [] : [{ at: target, label: "target", colour: "red" }];
    detail.charts = [
      chart(waiting, series(detail.history.backlogs), lines, number),
      chart(oldest, series(detail.history.oldest), ages, duration),
    ];
  };
  bounds.addEventListener("change", () => { draw(); detail.follow(); });
  detail.redraw = draw;
  detail.follow = () => {
    const row = rows[place];
    const { backlogs, oldest: ages } = detail.history;
    detail.charts[0].setData(series(backlogs));
    detail.charts[1].setData(series(ages));
    const none = ages.every((age) => age === null);
    put(untold, target !== null ? `target ${duration(target)}` : none ? "not known: the place where this queue lies does not tell it" : "");
    describe(waiting, "Waiting jobs", backlogs, number, lines);
    describe(oldest, "Age of the oldest job", ages, duration, target === null ? [] : [{ label: "target", at: target }]);
    const told = [
      ["read as", asked.read_as], ["on", asked.server], ["mode", row.mode], ["running", row.processing === null ? null : number(row.processing)],
      ["due later", row.delayed === null ? null : number(row.delayed)], ["circuit", circuitWord(row)],
    ].filter(([, value]) => value !== null);
    const rates = row.producers?.rates;
    const each = (from) => PRIORITIES.map((priority, index) => `${priority} ${rate(rates[from + index])}`).join(", ");
    if (rates) told.splice(-1, 0, ["delayed", each(0)], ["shed", each(3)]);
    else if (look.fleet?.members) told.splice(-1, 0, ["delayed and shed", "none that producers told of"]);
    if (circuitWord(row) === "unknown") told.at(-1)[1] = "unknown, as are delays and sheds: producers know them, and no fleet tells of them";
    facts.replaceChildren(...told.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  };
  draw();
  detail.follow();
  if (about.control && look.fleet) {
    const act = (action, word) => el("button", { class: "act", onclick: () => offer("circuit", action, rows[place].name, place) }, word);
    cell.append(el("div", { class: "buttons" }, act("open", "Force circuit open…"), act("close", "Close circuit…"), act("reset", "Reset circuit…")));
  }
}

function describe(element, what, values, write, lines) {
  const known = values.filter((value) => value !== null);
  const span = known.length ? `now ${write(values.at(-1))}, in the last hour from ${write(Math.min(...known))} to ${write(Math.max(...known))}` : "not known";
  const bounds = lines.map((line) => `; ${line.label} ${write(line.at)}`).join("");
  element.setAttribute("aria-label", `${what}: ${span}${bounds}`);
}

function chart(element, data, lines, write) {
  const faint = shade("faint");
  const axis = { stroke: faint, grid: { stroke: shade("line"), width: 1 }, ticks: { stroke: shade("line"), width: 1 } };
  // The next threshold above is always in the picture: how far is it?
  const range = (_, __, most) => {
    const next = lines.map((line) => line.at).filter((at) => at > (most ?? 0)).sort((a, b) => a - b)[0];
    return [0, Math.max(1, 1.1 * (most ?? 0), next === undefined ? 0 : 1.12 * next)];
  };
  const drawLines = (plot) => {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.font = `${12 * devicePixelRatio}px system-ui, sans-serif`;
    ctx.lineWidth = devicePixelRatio;
    for (const { at, label, colour } of lines) {
      const y = plot.valToPos(at, "y", true);
      if (y < bbox.top - 1) continue;
      ctx.strokeStyle = ctx.fillStyle = shade(colour);
      ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
      ctx.textAlign = "left";
      ctx.textBaseline = "bottom";
      ctx.fillText(label, bbox.left + 6 * devicePixelRatio, y - 3 * devicePixelRatio);
    }
    ctx.restore();
  };
  const plot = new uPlot({
    width: element.clientWidth, height: element.clientHeight, legend: { show: false }, cursor: { drag: { x: false, y: false } },
    scales: { y: { range } },
    axes: [{ ...axis, values: (_, at) => at.map((one) => new Date((one + skew()) * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })), space: 70, size: 34 },
      { ...axis, values: (_, at) => at.map(write), size: 64 }],
    series: [{}, { stroke: shade("chart"), fill: shade("chart-fill"), width: 1.5, spanGaps: false, points: { show: false } }],
    hooks: { draw: [drawLines] },
  }, data, element);
  return plot;
}

function explainer(place) {
  const backlog = el("input", { type: "number", min: "0", max: "9007199254740991", placeholder: "as it is now", "aria-label": "Waiting jobs" });
  const circuit = el("select", { "aria-label": "State of the circuit" }, ...["closed", "open", "half-open"].map((state) => el("option", {}, state)));
  const heading = el("h3", {}, "What jobs are told, and why");
  const answer = el("div", { "aria-live": "polite" });
  const explain = async (event) => {
    event?.preventDefault();
    try {
      const told = await json(query("explain", { queue: place, backlog: backlog.value, circuit: circuit.value }));
      const jobs = told.backlog === null ? "an unknown number of jobs" : `${number(told.backlog)} jobs`;
      put(heading, `What jobs are told, and why, ${told.assumed ? "if" : "while"} ${jobs} wait${told.circuit === "closed" ? "" : ` and the circuit is ${told.circuit}`}${passing() ? ", were nothing switched" : ""}`);
      answer.replaceChildren(
        ...told.budget.map((text) => el("p", {}, text)),
        table(["priority", "zone", "advice", "why"], PRIORITIES.map((p) => {
          const [zone, word, , why] = told.advice[p];
          return [p, zone ? el("span", { class: `zone ${zone}` }, zone) : "–", word, { wide: true, value: why }];
        })),
      );
    } catch (error) {
      answer.replaceChildren(el("p", { class: "stale" }, error.message));
    }
  };
  explain();
  return [
    heading,
    el("form", { class: "what", onsubmit: explain }, el("label", {}, "waiting jobs ", backlog), el("label", {}, "circuit ", circuit), el("button", { type: "submit" }, "Explain")),
    answer,
  ];
}

function table(heads, lines) {
  return el(
    "table", { class: "cards" },
    el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, ...lines.map((line) => el("tr", {}, ...line.map((one, column) => {
      const { value, wide = false } = one !== null && typeof one === "object" && !(one instanceof Node) ? one : { value: one };
      return el("td", { "data-label": heads[column], class: wide ? "wide" : "" }, value ?? "–");
    })))),
  );
}

// The fleet and its audit

let refreshing = false;

async function refresh() {
  if (refreshing) return;
  refreshing = true;
  const panel = $(view);
  try {
    if (view === "fleet" || view === "audit") {
      if (!look?.fleet) {
        panel.replaceChildren(el("p", { class: "empty" },
          "What only producers know (delays, sheds, circuits) is unknown here, and nothing can be switched: there is no fleet. " +
          "Give the producers' configuration and this one the same section fleet, as the guide's page on the fleet says."));
      } else if (view === "fleet") showMembers(panel, await json("members"));
      else showAudit(panel, (await json("audit")).lines);
    }
  } catch (error) {
    panel.replaceChildren(el("p", { class: "empty stale" }, error instanceof Refused ? error.message : "The server does not answer; it is asked again by itself."));
  }
  refreshing = false;
}

function showMembers(panel, told) {
  const { fleet } = look;
  const rates = fleet.rates ?? { offers: 0, delays: 0, sheds: 0 };
  const heads = ["process", "version", "mode", "law", "offers", "delays", "sheds", "circuits", "configuration", "trouble"];
  const lines = told.members.map((member) => {
    if (member.problem) return [member.id, ...heads.slice(2).map(() => "–"), { wide: true, value: member.problem }];
    const circuits = Object.entries(member.circuits).map(([name, state]) => `${name} ${state.replace("_", "-")}`);
    const more = member.circuits_open - circuits.length;
    return [
      { wide: true, value: el("span", { title: `since ${moment(member.started)}` }, member.id) }, `${member.version} ${member.engine}`, member.mode === "enforce" && member.enforces === "no" ? "enforce, not here" : member.mode,
      member.law.replace("_", "-"), rate(member.offers), rate(member.delays), rate(member.sheds),
      { wide: circuits.length > 0, value: circuits.length ? circuits.join(", ") + (more > 0 ? ` and ${more} more` : "") : "all closed" },
      `${member.config_revision ? `revision ${member.config_revision}` : "its own"} ${member.config_hash}`,
      { wide: true, value: [member.config_error, member.last_error].filter(Boolean).join("; ") || "none" },
    ];
  });
  const shown = told.members.length < told.count ? `, of which ${told.members.length} are shown` : "";
  panel.replaceChildren(
    el("div", { class: "panel" },
      el("h2", {}, `Fleet ${fleet.name}`),
      el("p", {}, `${number(told.count)} processes${shown}: ${rate(rates.offers)} jobs offered, ${rate(rates.delays)} delayed, ${rate(rates.sheds)} shed.`),
      lines.length ? table(heads, lines) : el("p", { class: "empty" }, "No process has told of itself: give producers a section fleet of this name, and see that they run.")),
  );
}

function showAudit(panel, lines) {
  const told = lines.map((line) => [
    moment(line.at), line.field, line.action, line.by, { wide: true, value: line.reason },
    line.until ? `until ${clock(line.until)}` : "–",
  ]);
  panel.replaceChildren(
    el("div", { class: "panel" },
      el("h2", {}, "Who switched what"),
      lines.length ? table(["when", "what", "to", "by", "reason", "holds"], told) : el("p", { class: "empty" }, "Nothing was switched yet.")),
  );
}

function choose(tab, focus) {
  view = tab;
  for (const button of $("tabs").children) {
    const mine = button.id === `tab-${tab}`;
    button.setAttribute("aria-selected", String(mine));
    button.tabIndex = mine ? 0 : -1;
    $(button.getAttribute("aria-controls")).hidden = !mine;
    if (mine && focus) button.focus();
  }
  refresh();
}

// Switches

const ACTIONS = {
  override: [["on", "on"], ["off", "off"]],
  emergency: [["on", "on"], ["off", "off"]],
  circuit: [["open", "forced open"], ["close", "closed, once"], ["reset", "reset, once"]],
};

function offer(kind, action, name = null, place = null) {
  $("switch").reset();
  put($("refused"), "");
  $("what").value = kind;
  if (place === null && name !== null) place = rows.findIndex((row) => row.name === name);
  if (place !== null && place >= 0) $("which").value = place;
  showActions();
  $("action").value = action;
  showOutlook();
  $("dialog").showModal();
  $("reason").focus();
}

function showActions() {
  const kind = $("what").value;
  $("action").replaceChildren(...ACTIONS[kind].map(([value, word]) => el("option", { value }, word)));
  $("whose").hidden = kind !== "circuit";
  showOutlook();
}

function showOutlook() {
  const [kind, action] = [$("what").value, $("action").value];
  $("while").hidden = action === "off";
  $("secret").hidden = about.token !== "typed" || savedToken() !== null;
  const fleet = look.fleet;
  const whom = fleet.members === null ? "All processes" : `All ${number(fleet.members)} processes`;
  const jobs = { on: "let every job go at once", off: "decide by the backlog again", open: "refuse this queue's jobs", close: "close this queue's circuit", reset: "reset this queue's circuit" }[action];
  const end = kind !== "circuit" && action === "off" ? "" : action === "close" || action === "reset"
    ? `, if they read it by ${clock(now() + Number($("for").value))}` : ` until ${clock(now() + Number($("for").value))}`;
  put($("outlook"), `${whom} of the fleet ${fleet.name} will ${jobs}${end}.`);
}

const savedToken = () => sessionStorage.getItem(TOKEN);
function forgetToken() {
  sessionStorage.removeItem(TOKEN);
}

async function token() {
  if (about.token === "asked") return (await json("token")).token;
  const given = savedToken() ?? $("token").value.trim();
  if (!/^[\x20-\x7e]+$/.test(given)) throw new Refused("the token is wrong: take the one that was shown when this server started");
  return given;
}

async function send(event) {
  event.preventDefault();
  const kind = $("what").value;
  const wish = { start, kind, action: $("action").value, reason: $("reason").value, for: Number($("for").value) };
  if (kind === "circuit") wish.queue = Number($("which").value);
  $("confirm").disabled = true;
  put($("refused"), "");
  try {
    const given = await token();
    const headers = { "Content-Type": "application/json", "X-Backpressure-Token": given };
    const told = await json("switch", { method: "POST", headers, body: JSON.stringify(wish) });
    if (about.token === "typed") sessionStorage.setItem(TOKEN, given);
    look.fleet = told.fleet;
    showBanner();
    $("dialog").close();
  } catch (error) {
    if (error instanceof Refused && error.message.startsWith("the token")) forgetToken();
    showOutlook();
    put($("refused"), error instanceof Refused ? error.message : "The server does not answer: nothing may have been switched.");
  }
  $("confirm").disabled = false;
}

// What people do

$("find").addEventListener("input", () => arrange(true));
$("order").addEventListener("change", () => arrange(true));
$("act").addEventListener("click", () => offer("override", "on"));
$("what").addEventListener("change", showActions);
for (const id of ["action", "for"]) $(id).addEventListener("change", showOutlook);
$("switch").addEventListener("submit", send);
$("cancel").addEventListener("click", () => $("dialog").close());
$("tabs").addEventListener("click", (event) => event.target.id && choose(event.target.getAttribute("aria-controls")));
$("tabs").addEventListener("keydown", (event) => {
  const tabs = [...$("tabs").children].map((button) => button.getAttribute("aria-controls"));
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step) choose(tabs[(tabs.indexOf(view) + step + tabs.length) % tabs.length], true);
});
$("rows").addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || !event.target.matches(".name")) return;
  const names = [...$("rows").querySelectorAll(".name")];
  names[names.indexOf(event.target) + step]?.focus();
  event.preventDefault();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && opened && !$("dialog").open) {
    const { name } = parts[opened.place];
    close();
    name.focus();
  } else if (event.key === "/" && !event.target.matches("input, select")) {
    choose("queues");
    $("find").focus();
    event.preventDefault();
  }
});
addEventListener("online", () => wake());
addEventListener("offline", () => abort?.abort());
document.addEventListener("visibilitychange", () => {
  // A page that nobody sees takes no viewer's place.
  if (document.hidden) setTimeout(() => document.hidden && abort?.abort(), 10_000);
  else wake();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  shades = null;
  visible.forEach(drawTrend);
  opened?.redraw?.();
});
addEventListener("resize", () => {
  visible.forEach(drawTrend);
  opened?.charts.forEach((plot) => {
    const box = plot.root.parentElement;
    plot.setSize({ width: box.clientWidth, height: box.clientHeight });
  });
});

// The part behind # reaches no server and no log; from the address it goes at once.
const given = /^#token=([\w-]+)$/.exec(location.hash);
if (given) {
  sessionStorage.setItem(TOKEN, given[1]);
  history.replaceState(null, "", location.pathname + location.search);
}
listen();
