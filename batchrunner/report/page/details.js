// One job in full, and the start of it all.

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
