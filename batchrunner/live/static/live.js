// The live page: facts come as server-sent events, and everything is written as text, never as markup.

const STATES = ["pending", "submitting", "unconfirmed", "running", "downloading", "succeeded", "failed", "cancelled"];
const BAR = ["succeeded", "failed", "unconfirmed", "cancelled", "downloading", "running", "submitting", "pending"];
const SPEAK_EVERY = 15000;
const PAGE = 24;

const at = (id) => document.getElementById(id);
const number = (value) => Number(value).toLocaleString("en-US");
const dollars = (credits) => (credits / 1000).toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 3 });
const money = (credits) => `${number(credits)} credits ($${dollars(credits)})`;

function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

// Controls, bidi marks and zero-width characters as escapes, as on the terminal.
function visible(text) {
  return String(text).replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 90) return `${whole} s`;
  const minutes = Math.round(whole / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

function left(run) {
  if (!run.eta_seconds) return "";
  const likely = `about ${span(run.eta_seconds)}`;
  if (!run.eta_range || span(run.eta_range[0]) === span(run.eta_range[1])) return likely;
  return `${likely} (${span(run.eta_range[0])} to ${span(run.eta_range[1])})`;
}

let db = ""; // what a command needs in order to mean this ledger

// --- Batches ---------------------------------------------------------------------------------------------

function percent(batch) {
  const ended = ["succeeded", "failed", "unconfirmed", "cancelled"].reduce((sum, s) => sum + batch.states[s], 0);
  return batch.jobs ? Math.floor((100 * ended) / batch.jobs) : 0;
}

function figures(batch) {
  const { credits, run } = batch;
  const found = [["spent", money(credits.spent)]];
  if (credits.reserved) found.push(["reserved", money(credits.reserved)]);
  if (credits.at_risk) found.push(["at risk", money(credits.at_risk)]);
  found.push(["estimated", money(credits.estimated)]);
  if (credits.max !== null) {
    const rest = Math.max(0, credits.max - credits.spent - credits.reserved - credits.at_risk);
    found.push(["budget", `${money(credits.max)}, ${number(rest)} left`]);
  }
  if (run && run.alive && run.in_flight !== null) {
    found.push(["in flight", `${number(run.in_flight)} of ${number(run.in_flight_limit)}`]);
    found.push(["submits", `${number(Math.round(run.submits_per_minute))} of ${number(run.submits_per_minute_limit)} a minute`]);
    if (run.per_minute) found.push(["finishes", `${number(run.per_minute)} a minute`]);
    if (left(run)) found.push(["left", left(run)]);
  }
  return found;
}

function notes(batch) {
  const { run, states } = batch;
  const found = [];
  const unconfirmed = states.unconfirmed + (batch.old.unconfirmed || 0);
  if (unconfirmed) {
    found.push(["bad", `${number(unconfirmed)} unconfirmed may have been paid for. `, `batchrunner resolve JOB --task-id ID | --resubmit | --abandon${db}`]);
  }
  const left = batch.left_to_workers;
  if (left) {
    const rest = ["pending", "submitting", "running", "downloading"].some((state) => states[state]);
    const nobody = rest && !left.workers;
    if (!nobody && left.unserved.length) {
      found.push(["bad", `No worker that is alive has the key for ${left.unserved.map(visible).join(" and ")}. `, `batchrunner worker${db}`]);
    }
    found.push([nobody ? "bad" : "", `Left to workers by ${visible(left.by)}, ${new Date(left.at * 1000).toLocaleString()}.${nobody ? " No worker is alive. " : ""}`, nobody ? `batchrunner worker${db}` : ""]);
  }
  if (run && run.alive && run.paused_by) found.push(["", `Paused by ${visible(run.paused_by)}. `, `batchrunner continue${db}`]);
  if (run && run.alive && run.hold) found.push(["", `Held for ${span(run.hold)}: the service asks to slow down.`]);
  if (run && !run.alive && run.ended_at === null) found.push(["bad", "The last run died without a word. ", `batchrunner resume ${batch.batch}${db}`]);
  if (run && !run.alive && run.ended_at !== null) {
    const why = run.stop ? `, stopped early: ${visible(run.stop)}` : "";
    found.push([run.exit_code ? "bad" : "", `The last run ended ${new Date(run.ended_at * 1000).toLocaleString()} with exit code ${run.exit_code}${why}.`]);
  }
  return found;
}

function trouble(batch) {
  const list = make("ul", undefined, "trouble");
  for (const job of batch.trouble) {
    const item = make("li");
    item.append(make("strong", visible(job.job)), ` ${job.state}`);
    const error = job.error || {};
    const parts = [error.kind, error.code !== null && error.code !== undefined ? `code ${error.code}` : "", error.request_id ? `request ${error.request_id}` : ""];
    item.append(`: ${visible(error.message || "")} `, make("span", `(${parts.filter(Boolean).map(visible).join(", ")})`, "quiet"));
    list.append(item);
  }
  return list;
}

function card(batch) {
  const article = make("article");
  const title = make("div", undefined, "bar-line");
  title.append(make("h2", visible(batch.batch)), make("p", `${percent(batch)} % of ${number(batch.jobs)}`, "share"));
  const stack = make("div", undefined, "stack");
  stack.setAttribute("role", "img");
  stack.setAttribute("aria-label", `${percent(batch)} percent have ended`);
  for (const state of BAR) {
    if (!batch.states[state]) continue;
    const part = make("i", undefined, `s-${state}`);
    part.style.width = `${(100 * batch.states[state]) / batch.jobs}%`;
    stack.append(part);
  }
  const states = make("ul", undefined, "states");
  for (const state of STATES) {
    if (batch.states[state]) states.append(make("li", `${number(batch.states[state])} ${state}`, `s-${state}`));
  }
  const list = make("dl");
  for (const [name, value] of figures(batch)) {
    const pair = make("div");
    pair.append(make("dt", name), make("dd", value));
    list.append(pair);
  }
  article.append(title, stack, states, list);
  for (const [kind, text, command] of notes(batch)) {
    const note = make("p", text, `note ${kind}`.trim());
    if (command) note.append(make("code", command));
    article.append(note);
  }
  const unsure = batch.trouble.some((job) => job.state === "unconfirmed");
  if (batch.trouble.length) article.append(make("h3", unsure ? "Unconfirmed, and last failures" : "Last failures"), trouble(batch));
  return article;
}

const shown = new Map(); // batch -> {text, element}: what did not change is not touched

function showBatches(batches) {
  const place = at("batches");
  if (!batches.length) {
    place.replaceChildren(make("p", "No batch in the ledger yet; batchrunner run MANIFEST makes one.", "quiet"));
    shown.clear();
    return;
  }
  const elements = batches.map((batch) => {
    const text = JSON.stringify(batch);
    const before = shown.get(batch.batch);
    if (before && before.text === text) return before.element;
    const element = card(batch);
    shown.set(batch.batch, { text, element });
    return element;
  });
  if (elements.length !== place.children.length || elements.some((e, i) => place.children[i] !== e)) place.replaceChildren(...elements);
}

// --- Workers ---------------------------------------------------------------------------------------------

const PARTS = { all: "everything", submit: "submits", download: "downloads" };
let crew = "";

function workerRow(worker) {
  const row = make("tr");
  const host = make("th", visible(worker.host));
  host.scope = "row";
  let life = worker.silent_seconds ? `silent for ${span(worker.silent_seconds)}` : "alive";
  if (!worker.alive) life += ": taken for dead";
  else if (worker.stop) life += `, about to end (${visible(worker.stop)})`;
  row.append(
    host,
    make("td", number(worker.worker)),
    make("td", String(worker.pid)),
    make("td", PARTS[worker.part] || visible(worker.part)),
    make("td", life, worker.alive ? "alive" : "silent"),
    make("td", worker.alive ? number(worker.in_flight) : "–", "n"),
    make("td", worker.alive ? number(worker.in_hand) : "–", "n"),
  );
  return row;
}

function showWorkers(workers) {
  at("workers").hidden = !workers.length;
  const text = JSON.stringify(workers);
  if (text === crew) return;
  crew = text;
  at("crew").replaceChildren(...workers.map(workerRow));
}

// --- What a screen reader hears, now and then -------------------------------------------------------------

let spokenAt = -SPEAK_EVERY;
let spoken = "";

function speak(batches) {
  const now = performance.now();
  if (now - spokenAt < SPEAK_EVERY) return;
  const alive = batches.filter((b) => b.run && b.run.alive);
  const text = (alive.length ? alive : batches.slice(0, 1))
    .map((b) => {
      const rest = b.run && b.run.alive && left(b.run) ? `, ${left(b.run)} left` : "";
      return `${b.batch}: ${percent(b)} percent, ${b.states.succeeded} of ${b.jobs} succeeded, ${b.states.failed} failed${rest}`;
    })
    .join(". ");
  if (text === spoken) return;
  spoken = text;
  spokenAt = now;
  at("spoken").textContent = visible(text);
}

// --- The grid --------------------------------------------------------------------------------------------

const grid = { page: 0, of: "", finished: -1, loaded: -1, busy: false };

function tile(clip) {
  const item = make("li");
  item.dataset.id = clip.id;
  const name = visible(clip.job) + (clip.revision > 1 ? ` (revision ${clip.revision})` : "");
  let media;
  if (clip.kind === "video" || clip.kind === "audio") {
    media = make(clip.kind);
    media.controls = true;
    media.preload = clip.kind === "video" ? "none" : "metadata";
    if (clip.kind === "video") still(media, clip.id);
    media.playsInline = true;
    media.setAttribute("aria-label", name);
  } else if (clip.kind === "image") {
    media = make("img");
    media.alt = visible(clip.prompt) || name;
    media.loading = "lazy";
  } else {
    media = make("p", "no preview", "quiet");
  }
  if (clip.kind) {
    media.addEventListener("error", () => media.replaceWith(make("p", "The file is not where the ledger says.", "note bad")), { once: true });
    media.src = `/clip/${clip.id}`;
  }
  const about = make("div", undefined, "about");
  about.append(make("h3", name));
  if (clip.prompt) {
    const prompt = make("p", visible(clip.prompt), "prompt");
    prompt.title = visible(clip.prompt);
    about.append(prompt);
  }
  const size = clip.bytes ? `${clip.bytes < 1e5 ? `${Math.ceil(clip.bytes / 1e3)} kB` : `${(clip.bytes / 1e6).toFixed(1)} MB`}, ` : "";
  const old = clip.current ? "" : ", not in the manifest any more";
  about.append(make("p", `${size}${number(clip.credits)} credits, ${new Date(clip.at * 1000).toLocaleTimeString()}${old}`));
  for (const warning of clip.warnings) about.append(make("p", visible(warning), "note"));
  item.append(media, about);
  return item;
}

// A small picture instead of the clip's own beginning, which would be loaded for every tile; the clip where there is none.
function still(video, id) {
  const picture = new Image();
  picture.addEventListener("load", () => { video.poster = picture.src; });
  picture.addEventListener("error", () => { video.preload = "metadata"; });
  picture.src = `/still/${id}`;
}

async function loadGrid() {
  if (grid.busy) return;
  grid.busy = true;
  try {
    const wanted = grid.finished;
    const answer = await fetch(`/clips?page=${grid.page}&batch=${encodeURIComponent(grid.of)}`);
    if (!answer.ok) return;
    const clips = await answer.json();
    const place = at("grid");
    const before = new Map([...place.children].map((item) => [item.dataset.id, item]));
    place.replaceChildren(...clips.map((clip) => before.get(String(clip.id)) || tile(clip)));
    grid.loaded = wanted;
    at("no-clips").hidden = clips.length > 0 || grid.page > 0;
    const pages = document.querySelector(".pages");
    pages.hidden = grid.page === 0 && clips.length < PAGE;
    at("newer").disabled = grid.page === 0;
    at("older").disabled = clips.length < PAGE;
    at("page").textContent = `page ${grid.page + 1}`;
    at("fresh").hidden = true;
  } finally {
    grid.busy = false;
  }
}

// Nothing moves under a reader's hands: while a clip plays, or something in the grid has the focus, a button waits.
function busyReading() {
  const place = at("grid");
  return place.contains(document.activeElement) || [...place.querySelectorAll("video, audio")].some((m) => !m.paused || m.currentTime > 0);
}

function countClips(batches) {
  const old = (b) => b.old.succeeded || 0;
  grid.finished = batches.filter((b) => !grid.of || b.batch === grid.of).reduce((sum, b) => sum + b.states.succeeded + old(b), 0);
  if (grid.finished === grid.loaded) return;
  if (grid.loaded < 0 || (grid.page === 0 && !busyReading())) {
    loadGrid();
    return;
  }
  const more = grid.finished - grid.loaded;
  at("fresh").textContent = more > 0 ? `Show ${number(more)} new` : "Refresh";
  at("fresh").hidden = false;
}

function offerBatches(batches) {
  const select = at("of");
  const names = batches.map((b) => b.batch);
  if (select.options.length === names.length + 1 && names.every((n, i) => select.options[i + 1].value === n)) return;
  select.replaceChildren(new Option("every batch", ""), ...names.map((n) => new Option(visible(n), n)));
  select.value = names.includes(grid.of) ? grid.of : "";
  grid.of = select.value;
  at("of-label").hidden = names.length < 2;
}

function turn(page) {
  grid.page = Math.max(0, page);
  grid.loaded = -1;
  loadGrid();
}

at("fresh").addEventListener("click", () => turn(0));
at("newer").addEventListener("click", () => turn(grid.page - 1));
at("older").addEventListener("click", () => turn(grid.page + 1));
at("of").addEventListener("change", () => {
  grid.of = at("of").value;
  turn(0);
});

// --- A word to the run, by who has the token --------------------------------------------------------------

const fragment = new URLSearchParams(location.hash.slice(1)).get("token");
if (fragment) {
  sessionStorage.setItem("token", fragment);
  history.replaceState(null, "", location.pathname);
}
const token = sessionStorage.getItem("token");

async function say(words, done) {
  const told = at("told");
  try {
    const answer = await fetch("/control", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Batchrunner-Token": token },
      body: JSON.stringify(words),
    });
    if (answer.headers.get("Content-Type")?.startsWith("application/json")) {
      const found = await answer.json();
      told.textContent = found.ok ? done(found) : visible(found.error);
    } else {
      told.textContent = visible(await answer.text());
    }
  } catch {
    told.textContent = "The server does not answer.";
  }
}

at("pause").addEventListener("click", () => say({ do: "pause" }, (f) => `Paused; ${number(f.progress.in_flight)} in flight are followed to their end.`));
at("continue").addEventListener("click", () => say({ do: "continue" }, () => "The run goes on."));
at("limits").addEventListener("submit", (event) => {
  event.preventDefault();
  const flight = at("in-flight").value;
  const submits = at("submits").value;
  say({ do: "limits", in_flight: flight ? Number(flight) : null, submits_per_minute: submits ? Number(submits) : null }, (f) =>
    `At most ${number(f.progress.in_flight_bound)} in flight and ${number(f.progress.submits_per_minute_bound)} submissions a minute.`);
});
at("cancel").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = at("names").value.trim();
  if (!name || !confirm(`Withdraw the pending jobs of ${name}?`)) return;
  say({ do: "cancel", names: [name], why: "from the live page" }, (f) => `${number(f.cancelled.length)} cancelled, ${number(f.skipped.length)} left alone.`);
});

// --- The stream ------------------------------------------------------------------------------------------

function heard(event) {
  const found = JSON.parse(event.data);
  at("problem").hidden = !found.error;
  at("problem").textContent = found.error ? visible(found.error) : "";
  showBatches(found.batches);
  showWorkers(found.workers || []);
  offerBatches(found.batches);
  countClips(found.batches);
  speak(found.batches);
  const alive = found.batches.filter((b) => b.run && b.run.alive);
  const first = alive[0] || found.batches[0];
  document.title = first ? `${percent(first)} % ${visible(first.batch)}` : "batchrunner";
}

function link(up, text) {
  at("link").className = `link ${up ? "up" : "down"}`;
  at("link").textContent = text;
}

const stream = new EventSource("/events");
stream.addEventListener("hello", (event) => {
  const found = JSON.parse(event.data);
  db = found.words;
  at("ledger").textContent = visible(found.ledger);
  at("control").hidden = !(found.control && token);
  link(true, "live");
});
stream.addEventListener("message", heard);
stream.addEventListener("error", () => link(false, stream.readyState === EventSource.CLOSED ? "disconnected; reload" : "reconnecting…"));
