"use strict";
// The gallery: a window of rows over all jobs, so that 5,000 are as light as 50. Text goes in as text only; the policy
// of the page forbids everything else.
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const jobs = data.jobs;

  // --- Making elements ---------------------------------------------------------------------------------

  function make(tag, properties, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties || {})) {
      if (value === undefined || value === null || value === false) continue;
      if (name === "class") element.className = value;
      else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value === true ? "" : value);
    }
    for (const child of children.flat()) if (child !== null && child !== undefined) element.append(child);
    return element;
  }

  const number = (n) => n.toLocaleString("en-US");
  const dollars = (credits) => "$" + (credits / 1000).toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 3 });
  const size = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);
  const seconds = (s) => `${Math.floor(Math.round(s) / 60)}:${String(Math.round(s) % 60).padStart(2, "0")}`;
  const many = (n, noun) => `${number(n)} ${noun}${n === 1 ? "" : "s"}`;
  const GLYPHS = { succeeded: "✓", failed: "✕", unconfirmed: "?", running: "◔", downloading: "↓", submitting: "↑",
    pending: "○", cancelled: "–" };
  const prompt = (job) => data.prompts[job.p] || "";
  const fields = (job) => data.fields[job.f] || [];
  const nameOf = (job) => job.name || job.key;

  // --- Commands and copying ----------------------------------------------------------------------------

  const command = (...words) => `batchrunner ${words.join(" ")}${data.db}`;

  async function copy(button, text) {
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = make("textarea", { class: "offscreen", readonly: true });
      area.value = text;
      (button.closest("dialog") || document.body).append(area);
      area.select();
      done = document.execCommand("copy");
      area.remove();
      button.focus();
    }
    button.textContent = done ? "Copied" : "Select it and copy";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  }

  function commandLine(line, label) {
    const button = make("button", { type: "button", class: "copy", "aria-label": `Copy the command: ${label}` }, "Copy");
    button.addEventListener("click", () => copy(button, line));
    return make("div", { class: "command" }, make("code", {}, line), button);
  }

  for (const button of document.querySelectorAll("button.copy")) {
    button.hidden = false;
    button.addEventListener("click", () => copy(button, button.previousElementSibling.textContent));
  }
  if (!jobs.length) return;

  // --- Posters and clips -------------------------------------------------------------------------------

  const posterChunks = [...document.querySelectorAll("script.posters")];
  const posters = [];

  function poster(job) {
    const chunk = Math.floor(job.i / data.chunk);
    if (posterChunks[chunk] === undefined || !job.sha) return null;
    posters[chunk] ||= JSON.parse(posterChunks[chunk].textContent);
    const found = posters[chunk][job.sha];
    return found ? `data:image/webp;base64,${found}` : null;
  }

  const embedded = new Map();
  for (const element of document.querySelectorAll("script.clip")) embedded.set(element.dataset.clip, element);
  const blobs = new Map();

  function source(job, n) {
    const name = `${job.i}.${n}`;
    const element = embedded.get(name);
    if (!element) return job.clips[n].url;
    if (!blobs.has(name)) {
      const binary = atob(element.textContent);
      const bytes = new Uint8Array(binary.length);
      for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
      blobs.set(name, URL.createObjectURL(new Blob([bytes], { type: element.dataset.type })));
    }
    return blobs.get(name);
  }

  const shows = (clip) => clip !== undefined && clip.show !== "file" && !clip.problem;
  const first = (job) => (job.clips || [])[0];
  const playable = (job) => shows(first(job));

  /** The clip itself, the n-th of a job; `quiet` plays it without sound and over again, as one of several. */
  function player(job, n, quiet) {
    const clip = job.clips[n];
    const label = `${job.key}: ${prompt(job).slice(0, 200)}`;
    const failed = (event) => event.target.replaceWith(make("p", { class: "gone" },
      "It can't be played. The page looks for it beside itself: ", make("code", {}, clip.url)));
    if (clip.show === "image") return make("img", { src: source(job, n), alt: label, onerror: failed });
    const element = make(clip.show, { src: source(job, n), controls: true, autoplay: n === 0, playsinline: true, loop: quiet,
      "aria-label": label, onerror: failed });
    element.muted = Boolean(quiet);
    return element;
  }

  // --- Verdicts: marked here, made true by a command ---------------------------------------------------

  const verdicts = new Map(jobs.filter((job) => job.verdict).map((job) => [job.i, job.verdict]));
  const given = new Map(verdicts);

  function decide(job, verdict) {
    // A second press takes the mark back; what the ledger has already stays until another word is said.
    if (verdicts.get(job.i) !== verdict) verdicts.set(job.i, verdict);
    else if (given.has(job.i)) verdicts.set(job.i, given.get(job.i));
    else verdicts.delete(job.i);
    for (const button of document.querySelectorAll(`button[data-verdict="${job.i}"]`))
      button.setAttribute("aria-pressed", String(verdicts.get(job.i) === button.value));
    showVerdicts();
  }

  function verdictButtons(job) {
    if (job.state !== "succeeded" || job.old) return [];
    return ["approved", "rejected"].map((verdict) => make("button", {
      type: "button", class: `mark ${verdict}`, value: verdict, "data-verdict": job.i,
      "aria-pressed": String(verdicts.get(job.i) === verdict),
      "aria-label": `${verdict === "approved" ? "Approve" : "Reject"} ${job.key}`,
      onclick: () => decide(job, verdict),
    }, verdict === "approved" ? "Approve" : "Reject"));
  }

  function showVerdicts() {
    const bar = $("verdicts");
    const lines = ["approved", "rejected"].flatMap((verdict) => {
      const chosen = jobs.filter((job) => verdicts.get(job.i) === verdict && given.get(job.i) !== verdict);
      if (!chosen.length) return [];
      const verb = verdict === "approved" ? "approve" : "reject";
      return [make("p", {}, `${many(chosen.length, "clip")} ${verdict}`),
        commandLine(command(verb, ...chosen.map(nameOf)), `${verb} ${many(chosen.length, "clip")}`)];
    });
    bar.replaceChildren(...lines);
    bar.hidden = !lines.length;
  }

  // --- A card ------------------------------------------------------------------------------------------

  function stateOf(job) {
    return make("span", { class: `state ${job.state}` }, make("span", { "aria-hidden": "true" }, GLYPHS[job.state]),
      ` ${job.kind && job.state === "failed" ? job.kind : job.state}`);
  }

  const problem = (job) => first(job) && first(job).problem;

  function picture(job, eager) {
    const box = make("div", { class: "picture" });
    if (!playable(job)) {
      box.append(make("div", { class: `blank ${job.state}` }, make("span", { class: "glyph", "aria-hidden": "true" },
        problem(job) ? "!" : GLYPHS[job.state]), make("p", {}, problem(job) || job.error || "")));
      return box;
    }
    const image = poster(job);
    const play = make("button", { type: "button", class: "play", "aria-label": `Play ${job.key}` },
      image ? make("img", { src: image, alt: "", decoding: eager ? "sync" : "async" }) : null,
      make("span", { class: "triangle", "aria-hidden": "true" }));
    play.addEventListener("click", () => start(box, job, false));
    box.append(play);
    return box;
  }

  function start(box, job, together) {
    if (!together) stopAll();
    const element = player(job, 0, together);
    box.replaceChildren(element);
    if (!together) element.focus();
  }

  function stopAll() {
    for (const media of document.querySelectorAll("#grid video, #grid audio")) media.pause();
  }

  function card(job, position) {
    const details = make("button", { type: "button", class: "title", "aria-haspopup": "dialog",
      title: job.key, onclick: () => openDetails(job) }, job.shot,
      make("span", { class: "muted" }, ` ${[`take ${job.take}`, (job.point || "").replace(/(^|, )[^,=]+=/g, "$1")].filter(Boolean).join(", ")}`));
    const facts = [job.took === undefined ? null : seconds(job.took), job.spent ? dollars(job.spent) : null,
      (job.clips || []).length > 1 ? `${job.clips.length} files` : null, job.old ? `old, revision ${job.rev}` : null].filter(Boolean).join(" · ");
    return make("article", { class: "card", "data-job": job.i, role: "listitem", "aria-setsize": found.length,
      "aria-posinset": position + 1, "aria-label": job.key }, picture(job),
      make("h3", {}, details),
      make("p", { class: "meta" }, stateOf(job), job.warn ? make("span", { class: "state unconfirmed", title: job.warn.join("; ") },
        "not as ordered") : null, make("span", { class: "muted" }, facts)),
      make("div", { class: "marks" }, verdictButtons(job)));
  }

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
    if (top < 120) scrollBy(0, top - 120);
    else if (top + height > innerHeight) scrollBy(0, top + height - innerHeight);
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

  // --- One job in full ---------------------------------------------------------------------------------

  const dialog = $("details");
  let opened = null;

  function rowOf(name, ...value) {
    return value.some(Boolean) ? [make("dt", {}, name), make("dd", {}, ...value)] : [];
  }

  const code = (text) => (text ? make("code", {}, text) : null);

  function commandsOf(job) {
    const name = nameOf(job);
    const lines = [];
    if (job.state === "succeeded" && !job.old)
      lines.push(["Approve it", command("approve", name)], ["Reject it", command("reject", name)]);
    if (job.state === "failed" && !job.old) lines.push(["Submit it again", command("retry", name)]);
    if (job.state === "unconfirmed") {
      const revision = job.rev ? ["--revision", job.rev] : [];
      lines.push(["It became this task", command("resolve", name, ...revision, "--task-id", "TASK_ID")],
        ["Submit again", command("resolve", name, ...revision, "--resubmit")],
        ["Let it go", command("resolve", name, ...revision, "--abandon")]);
    }
    if (job.state === "pending" && !job.old) lines.push(["Withdraw it", command("cancel", name)]);
    lines.push(["Everything about it", command("show", name, ...(job.rev ? ["--revision", job.rev] : []))]);
    return lines.flatMap(([label, line]) => [make("p", { class: "way" }, label), commandLine(line, `${label}: ${job.key}`)]);
  }

  function attempts(job) {
    if (!job.tries) return [];
    const head = ["", "Sent", "Outcome", "Credits", "Money", "Task", "Request id", "Took"];
    return [make("h3", {}, "Submissions"), make("div", { class: "scroll", tabindex: 0, role: "region",
      "aria-label": "Submissions" }, make("table", {},
      make("thead", {}, make("tr", {}, head.map((text) => make("th", { scope: "col" }, text || "No.")))),
      make("tbody", {}, job.tries.map((row) => make("tr", {}, row.map((cell) => make("td", {}, String(cell))))))))];
  }

  function openDetails(job) {
    opened = job;
    stopAll();
    const stage = make("div", { class: "stage" });
    (job.clips || []).forEach((clip, n) => {
      if (clip.role) stage.append(make("p", { class: "gone" }, clip.role));
      if (shows(clip)) stage.append(player(job, n, false));
      else stage.append(make("p", { class: "gone" }, clip.problem || clip.path));
    });
    if (!job.clips) stage.append(make("p", { class: "gone" }, job.error || `Nothing to show: ${job.state}.`));
    const step = (by, label) => make("button", { type: "button", class: "quiet", onclick: () => go(by) }, label);
    dialog.replaceChildren(
      make("div", { class: "dialog-head" }, make("h2", { id: "details-title", tabindex: -1 }, job.key), step(-1, "Previous"), step(1, "Next"),
        make("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Close")),
      stage,
      make("div", { class: "marks" }, verdictButtons(job)),
      make("p", { class: "prompt" }, prompt(job)),
      make("dl", { class: "facts" },
        rowOf("State", stateOf(job)), rowOf("Error", job.error), rowOf("Request id", code(job.request_id)),
        rowOf("Task", code(job.task)), rowOf("Model", job.model), rowOf("Matrix", job.point),
        rowOf("Promoted from", job.source), rowOf("Tags", (job.tags || []).join(", ")),
        fields(job).flatMap(([name, value]) => rowOf(name, value)),
        rowOf("Credits", `${number(job.spent || 0)} spent (${dollars(job.spent || 0)})` +
          (job.est === undefined ? "" : `, ${number(job.est)} estimated`) +
          (job.open ? `, ${number(job.open)} reserved` : "") + (job.risk ? `, ${number(job.risk)} at risk` : "")),
        rowOf("Media", job.media), rowOf("Not as ordered", (job.warn || []).join("\n")),
        (job.clips || []).flatMap((clip) => rowOf("File", code(clip.path), clip.bytes ? ` ${size(clip.bytes)}` : "",
          clip.problem ? ` ${clip.problem}.` : "")),
        rowOf("SHA-256", code(job.sha))),
      ...attempts(job),
      make("h3", {}, "Commands"), ...commandsOf(job));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    $("details-title").focus();
  }

  function go(by) {
    const at = found.indexOf(opened) + by;
    if (at >= 0 && at < found.length) openDetails(found[at]);
  }

  dialog.addEventListener("keydown", (event) => {
    if (event.target.closest("video, audio, .scroll")) return;
    if (event.key === "ArrowLeft") go(-1);
    if (event.key === "ArrowRight") go(1);
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => {
    dialog.replaceChildren();
    const at = found.indexOf(opened);
    if (at >= 0) focusOn(at);
  });

  showVerdicts();
  filter();
})();
