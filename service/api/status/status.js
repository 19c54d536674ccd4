// Asks /v1 every few seconds, shows the answers, and sends what is pressed.

import { fill, keepFocus, showStudy, showWorker, tellRest, write } from "./view.js";

const SECONDS_BETWEEN = 2;
const SECONDS_AT_MOST = 30;
const SHARE_OF_TIME = 0.05; // that answers to one page may take of the service
const MAX_WORKERS = 50;
const WORKERS_SEEN_WITHIN_SECONDS = 3_600;

const LISTS = {
  running: "state=RUNNING&page_size=20",
  waiting: "state=QUEUED&state=PAUSED&page_size=20",
  ended: "state=COMPLETED&state=FAILED&state=CANCELLED&page_size=10",
};
const CONSEQUENCES = {
  stop: "No more trials will be created. Those that run go on to their end.",
  cancel: "It ends now. Its running trials fail as cancelled, and it cannot go on later.",
};

class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** The answer of /v1 and the service's time, in seconds. Throws a Problem. */
async function call(path, method = "GET") {
  let response;
  let body;
  try {
    const signal = AbortSignal.timeout(SECONDS_AT_MOST * 1_000);
    response = await fetch(path, { method, signal, cache: "no-store" });
    body = await response.json();
  } catch {
    throw new Problem(0, "the service does not answer");
  }
  if (!response.ok) {
    throw new Problem(response.status, body.detail ?? response.statusText);
  }
  // Ages are told by one clock: this machine's may be wrong.
  return { body, now: Date.parse(response.headers.get("Date")) / 1_000 };
}

let numPressed = 0;

async function look() {
  const numBefore = numPressed;
  const names = Object.keys(LISTS);
  const [caller, workers, ...lists] = await Promise.all([
    call("/v1/caller"),
    call(`/v1/workers?seen_within_seconds=${WORKERS_SEEN_WITHIN_SECONDS}`),
    ...names.map((name) => call(`/v1/studies?${LISTS[name]}`)),
  ]);
  if (numPressed !== numBefore) {
    await look(); // some of these answers are older than what a button has done
    return;
  }
  keepFocus(() => {
    const mayWrite = caller.body.scopes.includes("write");
    document.getElementById("read-only").hidden = mayWrite;
    names.forEach((name, index) => showStudies(name, lists[index], mayWrite));
    showWorkers(workers);
  });
}

function showStudies(name, { body, now }, mayWrite) {
  const { studies, total_size: numTotal } = body;
  const list = document.getElementById(name);
  fill(list, studies, {
    template: "study",
    key: (study) => study.name,
    update: (card, study) => showStudy(card, study, { now, mayWrite }),
  });
  tellRest(list, numTotal);
}

function showWorkers({ body, now }) {
  const found = body.workers.toSorted(
    (a, b) => (b.state === "LIVE") - (a.state === "LIVE") || b.seen_at - a.seen_at,
  );
  const list = document.getElementById("workers");
  fill(list, found.slice(0, MAX_WORKERS), {
    template: "worker",
    key: (worker) => worker.id,
    update: (card, worker) => showWorker(card, worker, { now }),
  });
  tellRest(list, found.length);
}

function tellConnection(problem) {
  const line = document.getElementById("connection");
  line.classList.toggle("broken", problem !== null);
  write(line, "[role=status]", problem === null ? "Live." : whatToDo(problem));
  if (problem === null) {
    write(line, "#seen", `As of ${new Date().toLocaleTimeString()}.`);
  }
}

function whatToDo({ status, message }) {
  if (status === 401) {
    return `Not shown any more: ${message}. Reload the page to give a token.`;
  }
  return `Not up to date: ${message}. Trying again …`;
}

let timer = null;
let isLooking = false;

async function keepLooking() {
  if (isLooking) {
    return;
  }
  clearTimeout(timer);
  isLooking = true;
  const began = performance.now();
  let seconds = SECONDS_BETWEEN;
  try {
    await look();
    tellConnection(null);
    const secondsTaken = (performance.now() - began) / 1_000;
    seconds = Math.min(Math.max(seconds, secondsTaken / SHARE_OF_TIME), SECONDS_AT_MOST);
  } catch (error) {
    if (!(error instanceof Problem)) {
      throw error;
    }
    tellConnection(error);
  } finally {
    isLooking = false;
    if (!document.hidden) {
      timer = setTimeout(keepLooking, seconds * 1_000);
    }
  }
}

async function press(button) {
  const card = button.closest(".card");
  const { verb } = button.dataset;
  const name = card.dataset.key;
  if (verb in CONSEQUENCES && !(await isConfirmed(verb, name))) {
    return;
  }
  const hadFocus = document.activeElement === button;
  try {
    const { body, now } = await call(`/v1/studies/${encodeURIComponent(name)}:${verb}`, "POST");
    numPressed += 1;
    write(card, ".refusal", "");
    showStudy(card, body, { now, mayWrite: true });
  } catch (error) {
    write(card, ".refusal", `It could not be done: ${error.message}`);
  }
  if (hadFocus && button.hidden) {
    card.querySelector("button:not([hidden])")?.focus();
  }
  keepLooking();
}

function isConfirmed(verb, name) {
  const dialog = document.getElementById("confirm");
  const yes = document.getElementById("confirm-yes");
  const title = `${verb === "stop" ? "Stop" : "Cancel"} ${name}`;
  document.getElementById("confirm-title").textContent = `${title}?`;
  document.getElementById("confirm-text").textContent = CONSEQUENCES[verb];
  yes.textContent = title;
  return new Promise((resolve) => {
    const onYes = () => dialog.close("yes");
    yes.addEventListener("click", onYes);
    dialog.addEventListener(
      "close",
      () => {
        yes.removeEventListener("click", onYes);
        resolve(dialog.returnValue === "yes");
      },
      { once: true },
    );
    dialog.returnValue = "";
    dialog.showModal();
  });
}

document.getElementById("confirm-no").addEventListener("click", () => {
  document.getElementById("confirm").close();
});
document.querySelector("main").addEventListener("click", ({ target }) => {
  if (target.matches("button[data-verb]")) {
    press(target);
  }
});
document.addEventListener("visibilitychange", () => document.hidden || keepLooking());
addEventListener("online", keepLooking);
keepLooking();
