// Photos go to POST /classify one by one, a few at a time; each has a card with its outcome.

const AT_ONCE = 4;
const ATTEMPTS = 4;
const TOP_K = 5;
const MODELS_AGAIN_S = 2;

const WORDS = {
  image_empty: "The file is empty.",
  image_unsupported: "This is no photo in a format that the service reads: JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF.",
  image_truncated: "The photo is damaged or cut short.",
  image_too_many_pixels: "The photo has more pixels than the service takes.",
  request_too_large: "The file is larger than the service takes.",
  model_unknown: "This model is not served any more.",
  unauthorized: "The service asks for an API key.",
  forbidden: "This key is not for classifying photos.",
  overloaded: "The service is busy.",
  deadline_exceeded: "The service took too long.",
  not_ready: "The service is not ready yet.",
  internal: "The service failed. The photo is not to blame.",
  unreachable: "The service cannot be reached.",
};
const WORTH_ANOTHER_TRY = ["unauthorized", "overloaded", "deadline_exceeded", "not_ready", "internal", "unreachable"];

const element = (id) => document.getElementById(id);
const percent = (probability) => `${(100 * probability).toFixed(1)}\u00a0%`;
const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));
const copy = (id) => element(id).content.firstElementChild.cloneNode(true);

const photos = new Set();
let models = [];
let key = "";
let again;

class Problem extends Error {
  constructor(code, detail) {
    super(detail);
    this.code = code;
  }

  get words() {
    return WORDS[this.code] ?? this.message;
  }
}

// An answer of the service as JSON. Throws Problem; while the service is busy it waits as it is told to.
async function ask(path, options = {}, waiting = () => {}) {
  const headers = key ? { ...options.headers, Authorization: `Bearer ${key}` } : options.headers;
  for (let attempt = 1; ; attempt += 1) {
    const response = await fetch(path, { ...options, headers }).catch((error) => {
      throw error.name === "AbortError" ? error : new Problem("unreachable", error.message);
    });
    if (response.ok) return { body: await response.json(), timing: response.headers.get("Server-Timing") ?? "" };
    const problem = await response.json().catch(() => ({}));
    if (response.status === 401) askForKey();
    if (response.status !== 429 || attempt === ATTEMPTS) {
      throw new Problem(problem.code ?? "internal", problem.detail ?? `the answer had status ${response.status}`);
    }
    const seconds = Number(response.headers.get("Retry-After")) || 1;
    waiting(seconds);
    await pause(seconds);
  }
}

function askForKey() {
  if (!element("access").hidden) return;
  element("access").hidden = false;
  element("key").focus();
}

class Photo {
  constructor(file) {
    this.file = file;
    this.state = "waiting";
    this.card = copy("photo");
    this.image = this.find(".thumbnail img");
    this.image.addEventListener("error", () => this.image.classList.add("absent"));
    this.image.src = URL.createObjectURL(file);
    this.find("h3").textContent = file.name;
    this.find(".remove").setAttribute("aria-label", `Remove ${file.name}`);
    this.find(".remove").addEventListener("click", () => this.leave());
    this.find(".again").addEventListener("click", () => this.queue());
    element("photos").append(this.card);
  }

  find(selector) {
    return this.card.querySelector(selector);
  }

  queue() {
    this.asking?.abort();
    this.show("waiting", "Waiting …");
    work();
  }

  async classify() {
    const asking = new AbortController();
    this.asking = asking;
    this.show("asking", "Looking …");
    const query = new URLSearchParams({ model: element("model").value, top_k: TOP_K });
    const request = {
      method: "POST",
      body: this.file,
      // The content decides, not what the browser makes of the file's name.
      headers: { "Content-Type": "application/octet-stream" },
      signal: asking.signal,
    };
    const busy = (seconds) => this.show("asking", `The service is busy; trying again in ${seconds} s …`);
    try {
      const { body, timing } = await ask(`classify?${query}`, request, busy);
      if (!asking.signal.aborted) this.answer(body, timing);
    } catch (error) {
      if (!asking.signal.aborted) this.fail(error);
    }
  }

  answer({ predictions: [prediction], model, runtime }, timing) {
    const best = `${prediction.label}, ${percent(prediction.probability)}`;
    this.show(prediction.abstained ? "unsure" : "sure", prediction.abstained ? `Not sure; perhaps ${best}` : best);
    this.find(".bars").replaceChildren(...prediction.top_k.map(bar));
    this.find(".timing").textContent = `${model.name} ${model.version}, ${runtime.device}. ${spelled(timing)}`;
  }

  fail(error) {
    const problem = error instanceof Problem ? error : new Problem("internal", String(error));
    this.show("problem", problem.words);
    this.find("details").hidden = problem.words === problem.message;
    this.find("details p").textContent = `${problem.code}: ${problem.message}`;
    this.find(".again").hidden = !WORTH_ANOTHER_TRY.includes(problem.code);
  }

  show(state, verdict) {
    this.state = state;
    this.card.className = state;
    this.card.setAttribute("aria-busy", state === "waiting" || state === "asking");
    this.find(".verdict").textContent = verdict;
    this.find(".bars").replaceChildren();
    this.find(".timing").textContent = "";
    this.find("details").hidden = true;
    this.find(".again").hidden = true;
  }

  leave() {
    const next = this.card.nextElementSibling ?? this.card.previousElementSibling;
    this.forget();
    (next?.querySelector(".remove") ?? element("files")).focus();
    report();
  }

  forget() {
    this.asking?.abort();
    URL.revokeObjectURL(this.image.src);
    this.card.remove();
    photos.delete(this);
  }
}

function bar({ label, probability }) {
  const row = copy("bar");
  row.querySelector(".label").textContent = label;
  row.querySelector(".percent").textContent = percent(probability);
  row.querySelector(".filled").style.width = `${100 * probability}%`;
  return row;
}

// "decode;dur=3.35, total;dur=14.6" → "14.6 ms in the service: decode 3.4"
function spelled(timing) {
  const stages = [...timing.matchAll(/(\w+);dur=([\d.]+)/g)].map(([, stage, spent]) => [stage, Number(spent).toFixed(1)]);
  const total = stages.find(([stage]) => stage === "total")?.[1];
  const parts = stages.filter(([stage]) => stage !== "total").map((part) => part.join(" "));
  return total === undefined ? "" : `${total} ms in the service: ${parts.join(", ")}`;
}

// Begin what waits, as far as it may; every photo that is done makes room for the next.
function work() {
  report();
  const count = (state) => [...photos].filter((photo) => photo.state === state).length;
  for (const photo of photos) {
    if (count("asking") >= AT_ONCE) return;
    if (photo.state === "waiting" && models.length) photo.classify().then(work);
  }
}

// One sentence for everybody, read out by screen readers.
function report() {
  const all = [...photos];
  const done = all.filter(({ state }) => state !== "waiting" && state !== "asking");
  const problems = done.filter(({ state }) => state === "problem").length;
  const failed = problems ? `, ${problems} could not be classified` : "";
  const only = done.length === 1 && all.length === 1 ? done[0] : undefined;
  element("status").textContent = only
    ? `${only.file.name}: ${only.find(".verdict").textContent}`
    : all.length
      ? `${done.length} of ${all.length} photos done${failed}.`
      : "No photos yet.";
  element("clear").hidden = !all.length;
}

function add(files) {
  for (const file of files) photos.add(new Photo(file));
  work();
}

function describe() {
  const chosen = models.find(({ name }) => name === element("model").value);
  element("model-note").textContent = chosen ? `${chosen.title}: ${chosen.classes} classes, version ${chosen.version}` : "";
}

// The models; without any it asks again, unless a key has to come first.
async function load() {
  clearTimeout(again);
  let away = false;
  try {
    ({ models } = (await ask("models")).body);
    const options = models.map(({ name }) => new Option(name));
    element("model").replaceChildren(...options);
    element("model").value = (models.find((model) => model.default) ?? models[0])?.name ?? "";
    describe();
    away = !models.length;
    if (away) element("model-note").textContent = "No model is served at the moment.";
  } catch (error) {
    away = error.code !== "unauthorized";
    element("model-note").textContent = error.words ?? String(error);
  }
  if (away) {
    element("model-note").textContent += " Trying again …";
    again = setTimeout(load, 1000 * MODELS_AGAIN_S);
  }
  work();
}

element("files").addEventListener("change", ({ target }) => {
  add([...target.files]);
  target.value = ""; // so that the same photo can be chosen again
});

element("model").addEventListener("change", () => {
  describe();
  for (const photo of [...photos]) photo.queue();
});

element("access").addEventListener("submit", (event) => {
  event.preventDefault();
  key = element("key").value.trim();
  element("access").hidden = true;
  element("files").focus();
  if (!models.length) load();
  for (const photo of [...photos]) if (photo.state === "problem") photo.queue();
});

element("clear").addEventListener("click", () => {
  for (const photo of [...photos]) photo.forget();
  report();
  element("files").focus();
});

document.addEventListener("paste", ({ clipboardData }) => add([...clipboardData.files]));

document.addEventListener("dragover", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", ({ relatedTarget }) => {
  if (!relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  document.body.classList.remove("dragging");
  add([...event.dataTransfer.files]);
});

load();
