// Making elements, and copying commands. Text goes in as text only: the policy of the page forbids everything else.

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
