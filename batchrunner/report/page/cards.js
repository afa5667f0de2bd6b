// A clip with its still, its player and a person's verdict, as a card.

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
  const facts = [job.spent ? dollars(job.spent) : null, job.took === undefined ? null : seconds(job.took),
    (job.clips || []).length > 1 ? `${job.clips.length} files` : null, job.old ? `old, revision ${job.rev}` : null].filter(Boolean).join(" · ");
  return make("article", { class: "card", "data-job": job.i, role: "listitem", "aria-setsize": found.length,
    "aria-posinset": position + 1, "aria-label": job.key }, picture(job),
    make("h3", {}, details),
    make("p", { class: "meta" }, stateOf(job), job.warn ? make("span", { class: "state unconfirmed", title: job.warn.join("; ") },
      "not as ordered") : null, make("span", { class: "muted" }, facts)),
    make("div", { class: "marks" }, verdictButtons(job)));
}
