// The gallery: a window of rows over all jobs, so that 5,000 are as light as 50.

// --- Rows and their window ---------------------------------------------------------------------------

const grid = $("grid");
let found = [];
let rows = [];
let height = 0;
const drawn = new Map();
const BEYOND = 900; // pixels above and below the window that are drawn too

function makeRow(index) {
  const row = rows[index];
  if (row.group === undefined)
    return make("div", { class: "row", role: "presentation" }, row.jobs.map((job, n) => card(job, row.first + n)));
  const spent = row.jobs.reduce((sum, job) => sum + (job.spent || 0), 0);
  const strip = make("div", { class: "strip", role: "list", tabindex: 0, "aria-label": `Takes of ${row.group}` },
    row.jobs.map((job, n) => card(job, row.first + n)));
  const ready = row.jobs.filter(playable);
  const all = ready.length < 2 ? null : make("button", { type: "button", class: "quiet", onclick: () => {
    for (const job of ready) start(strip.querySelector(`[data-job="${job.i}"] .picture`), job, true);
  } }, `Play ${ready.length} together`);
  return make("div", { class: "row group", role: "group", "aria-label": row.group },
    make("div", { class: "group-head" }, make("h3", {}, row.group),
      make("span", { class: "muted" }, `${many(row.jobs.length, "take")} · ${dollars(spent)}`), all,
      make("p", { class: "muted" }, prompt(row.jobs[0]))), strip);
}

function group() {
  const groups = new Map();
  for (const job of found) {
    const name = job.shot + (job.point ? ` · ${job.point}` : "") + (job.old ? ` · revision ${job.rev}` : "");
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(job);
  }
  let first = 0;
  return [...groups].map(([name, members]) => {
    first += members.length;
    return { group: name, jobs: members, first: first - members.length };
  });
}

function layout() {
  drawn.clear();
  grid.replaceChildren();
  const takes = $("view").value === "takes";
  grid.className = takes ? "takes" : "all";
  if (takes) {
    grid.removeAttribute("role");
    rows = group();
  } else {
    grid.setAttribute("role", "list");
    grid.setAttribute("aria-label", "Clips");
    const columns = Math.max(1, Math.floor((grid.clientWidth + 20) / (grid.clientWidth < 520 ? 170 : 250)));
    grid.style.setProperty("--columns", columns);
    rows = [];
    for (let i = 0; i < found.length; i += columns) rows.push({ jobs: found.slice(i, i + columns), first: i });
  }
  height = 0;
  if (rows.length) {
    const probe = makeRow(0);
    grid.append(probe);
    height = Math.ceil(probe.getBoundingClientRect().height) + (takes ? 34 : 24);
    probe.remove();
  }
  grid.style.height = `${rows.length * height}px`;
  draw();
}

function draw() {
  if (!rows.length) return;
  const top = grid.getBoundingClientRect().top;
  const first = Math.max(0, Math.floor((-top - BEYOND) / height));
  const last = Math.min(rows.length - 1, Math.ceil((innerHeight - top + BEYOND) / height));
  for (const [index, element] of drawn) {
    if ((index < first || index > last) && !element.contains(document.activeElement)) {
      element.remove();
      drawn.delete(index);
    }
  }
  for (let index = first; index <= last; index++) {
    if (drawn.has(index)) continue;
    const element = makeRow(index);
    element.style.transform = `translateY(${index * height}px)`;
    // In the order of the page, so that the keyboard goes through the rows as they are seen.
    const after = [...drawn.keys()].filter((other) => other > index);
    grid.insertBefore(element, after.length ? drawn.get(Math.min(...after)) : null);
    drawn.set(index, element);
  }
}

let waiting = false;
function soon() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}
addEventListener("scroll", soon, { passive: true });

let width = 0;
new ResizeObserver(() => {
  if (grid.clientWidth === width) return;
  width = grid.clientWidth;
  layout();
}).observe(grid);

// Arrow keys between cards, whichever of their buttons has the focus.
grid.addEventListener("keydown", (event) => {
  const now = event.target.closest(".card");
  if (!now || event.target.matches("video, audio") || event.altKey || event.ctrlKey || event.metaKey) return;
  const columns = $("view").value === "takes" ? 1 : rows[0].jobs.length;
  const move = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
  if (move === undefined) return;
  event.preventDefault();
  const target = found.indexOf(jobs[Number(now.dataset.job)]) + move;
  if (target < 0 || target >= found.length) return;
  focusOn(target);
});

function focusOn(position) {
  const index = rows.findIndex((row) => position >= row.first && position < row.first + row.jobs.length);
  const top = grid.getBoundingClientRect().top + index * height;
  const bottom = innerHeight - $("verdicts").offsetHeight;
  if (top < 120) scrollBy(0, top - 120);
  else if (top + height > bottom) scrollBy(0, top + height - bottom);
  draw();
  const target = drawn.get(index).querySelector(`[data-job="${(rows[index].jobs[position - rows[index].first]).i}"]`);
  target.querySelector(".play, .title").focus({ preventScroll: true });
  draw();
}

// --- Filters -----------------------------------------------------------------------------------------

const hay = [];
const haystack = (job) => (hay[job.i] ??= [job.key, job.shot, job.point, job.model, prompt(job), job.error, job.kind,
  job.request_id, job.task, ...(job.tags || []), ...fields(job).flat()].join("\n").toLowerCase());
const ORDERS = { new: (a, b) => (b.at || 0) - (a.at || 0), slow: (a, b) => (b.took || 0) - (a.took || 0),
  dear: (a, b) => (b.spent || 0) - (a.spent || 0) };

function filter() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const states = new Set([...document.querySelectorAll("input[name=state]:checked")].map((box) => box.value));
  const [tag, model, word] = [$("tag").value, $("model").value, $("word").value];
  const [old, unlike] = ["old", "unlike"].map((id) => $(id) && $(id).checked);
  found = jobs.filter((job) => states.has(job.state) && (old || !job.old) && (!unlike || job.warn) && (!tag || (job.tags || []).includes(tag)) &&
    (!model || job.model === model) && (!word || (verdicts.get(job.i) || "none") === word) &&
    words.every((part) => haystack(job).includes(part)));
  const order = ORDERS[$("sort").value];
  if (order) found.sort(order);
  $("found").textContent = found.length ? many(found.length, "job") : "Nothing matches";
  layout();
}

function options(id, values) {
  if (values.size < (id === "tag" ? 1 : 2)) return;
  $(`${id}-field`).hidden = false;
  $(id).append(...[...values].sort().map((value) => make("option", { value }, value)));
}

options("tag", new Set(jobs.flatMap((job) => job.tags || [])));
options("model", new Set(jobs.map((job) => job.model)));
const form = $("filters");
form.hidden = false;
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("change", filter);
let typing = 0;
$("search").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(filter, 120); });
$("show-all").addEventListener("click", () => {
  form.reset();
  filter();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.closest("input, select, textarea, dialog")) return;
  event.preventDefault();
  $("search").focus();
});
