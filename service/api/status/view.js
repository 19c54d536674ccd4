// What is shown of studies and workers. Texts of people reach the page as textContent only.

const STATES_OF_WORKERS = { LIVE: "live", LOST: "lost", GONE: "shut down" };
const ENDED = ["COMPLETED", "FAILED", "CANCELLED"];
const PACE_WINDOW_SECONDS = 30;

const seenDone = new Map(); // by study: [seconds, trials done], of the last half minute

/** Fill a list with a card for each item; cards that stay are changed in place and keep the focus. */
export function fill(list, items, { template, key, update }) {
  const wanted = new Set(items.map(key));
  const cards = new Map();
  for (const card of [...list.children]) {
    if (wanted.has(card.dataset.key)) {
      cards.set(card.dataset.key, card);
    } else {
      card.remove();
    }
  }
  items.forEach((item, index) => {
    const card = cards.get(key(item)) ?? newCard(template, key(item));
    if (list.children[index] !== card) {
      list.insertBefore(card, list.children[index] ?? null);
    }
    update(card, item);
  });
}

/** Make a change; where the card with the focus goes, the focus goes on with its study. */
export function keepFocus(change) {
  const card = document.activeElement?.closest(".card");
  const section = card?.closest("section");
  change();
  if (card && !card.isConnected) {
    const follower = `[data-key="${CSS.escape(card.dataset.key)}"] .buttons:not([hidden])`;
    const button = document.querySelector(`${follower} > button:enabled:not([hidden])`);
    (button ?? section.querySelector("h2")).focus();
  }
}

/** Say below a list that it is empty, or how many there are beyond what it shows. */
export function tellRest(list, numTotal) {
  const numMore = numTotal - list.children.length;
  const section = list.closest("section");
  section.querySelector(".none").hidden = numTotal > 0;
  write(section, ".more", numMore > 0 ? `… and ${whole(numMore)} more` : "");
}

export function showStudy(card, study, { now, mayWrite }) {
  const link = card.querySelector(".name");
  write(card, ".name", study.name);
  if (study.optuna_study_id !== null && "dashboard" in document.documentElement.dataset) {
    link.href = `/dashboard/studies/${study.optuna_study_id}`;
  }
  const hasEnded = ENDED.includes(study.state);
  const stopping = study.stopping && !hasEnded;
  write(card, ".state", stopping ? `${study.state}, stopping` : study.state);
  write(card, ".reason", study.reason ?? "");
  const { complete, pruned, fail, running } = study.trials;
  const numDone = complete + pruned + fail;
  bar(card, numDone, study.num_trials, `trials of ${study.name} that are done`);
  const counts = [`${whole(numDone)} of ${whole(study.num_trials)} trials done`];
  for (const [count, word] of [[pruned, "pruned"], [fail, "failed"], [running, "running"]]) {
    if (count > 0) {
      counts.push(`${whole(count)} ${word}`);
    }
  }
  if (study.mean_epoch !== null) {
    counts.push(epochs(study));
  }
  write(card, ".counts", counts.join(", "));
  write(card, ".best", study.best === null ? "" : bestTrial(study));
  write(card, ".times", (hasEnded ? timesOfEnded : timesOfOpen)(study, numDone, now).join(", "));
  const report = card.querySelector(".report");
  report.href = `/v1/studies/${study.name}/report`;
  report.setAttribute("aria-label", `Report of ${study.name}`);
  for (const button of card.querySelectorAll("button")) {
    showButton(button, study, mayWrite);
  }
  card.querySelector(".buttons").hidden = hasEnded;
}

export function showWorker(card, worker, { now }) {
  write(card, ".name", worker.name);
  const since = worker.state === "LIVE" ? "" : ` ${duration(now - worker.seen_at)} ago`;
  write(card, ".state", STATES_OF_WORKERS[worker.state] + since);
  fill(card.querySelector(".devices"), worker.state === "LIVE" ? worker.devices : [], {
    template: "device",
    key: (device) => device.name,
    update: (row, device) => showDevice(row, device, worker.runs_by_device[device.name] ?? 0),
  });
}

function showDevice(row, device, numRuns) {
  const numBusy = Math.min(numRuns, device.num_slots);
  const slots = [`${numBusy} of ${device.num_slots} slots busy`, `${device.num_slots - numBusy} idle`];
  if (numRuns > numBusy) {
    slots.push(`${numRuns - numBusy} more runs wait there`);
  }
  write(row, ".name", `${device.name} (${device.description})`);
  write(row, ".slots", slots.join(", "));
  bar(row, numBusy, device.num_slots, `busy slots of ${device.name}`);
}

function showButton(button, study, mayWrite) {
  const { verb } = button.dataset;
  const isPaused = study.state === "PAUSED";
  const unfit = { pause: isPaused, resume: !isPaused, stop: study.stopping, cancel: false };
  button.hidden = unfit[verb];
  button.disabled = !mayWrite;
  button.title = mayWrite ? "" : "your token may only read";
  // The words on it come first, so that it can be called by them.
  button.setAttribute("aria-label", `${button.textContent.replace(" …", "")} ${study.name}`);
}

function epochs({ mean_epoch: mean, spec }) {
  const isKnown = spec.task.name !== "external" && !("epochs" in spec.space);
  return `at epoch ${whole(mean)}${isKnown ? ` of ${whole(spec.budget.epochs)}` : ""} on average`;
}

function bestTrial({ best, spec }) {
  const config = Object.entries(best.config).map(([name, value]) => `${name}=${short(value)}`);
  return `best ${spec.objective.metric} ${short(best.value)}, trial ${best.number}: ${config.join(", ")}`;
}

function timesOfOpen(study, numDone, now) {
  const times = [
    study.started_at === null
      ? `posted ${duration(now - study.created_at)} ago`
      : `started ${duration(now - study.started_at)} ago`,
  ];
  const secondsLeft = secondsForRest(study, numDone, now);
  if (secondsLeft !== null) {
    times.push(`about ${duration(secondsLeft)} left`);
  }
  if (study.deadline_at !== null) {
    times.push(
      study.deadline_at > now ? `its time is up in ${duration(study.deadline_at - now)}` : "its time is up",
    );
  }
  return times;
}

function timesOfEnded(study, numDone, now) {
  seenDone.delete(study.name);
  const times = [`ended ${duration(now - study.finished_at)} ago`];
  if (study.started_at !== null) {
    times.push(`after ${duration(study.finished_at - study.started_at)}`);
  }
  return times;
}

/** By how many trials have ended over the last half minute; null where none has. */
function secondsForRest(study, numDone, now) {
  const seen = seenDone.get(study.name) ?? [];
  seenDone.set(study.name, seen);
  seen.push([now, numDone]);
  while (seen.length > 2 && seen[1][0] <= now - PACE_WINDOW_SECONDS) {
    seen.shift();
  }
  const [began, numBefore] = seen[0];
  if (study.state !== "RUNNING" || numDone <= numBefore || now <= began) {
    return null;
  }
  return ((study.num_trials - numDone) * (now - began)) / (numDone - numBefore);
}

function newCard(template, key) {
  const card = document.getElementById(template).content.firstElementChild.cloneNode(true);
  card.dataset.key = key;
  return card;
}

function bar(root, value, max, label) {
  const progress = root.querySelector("progress");
  progress.max = Math.max(max, 1);
  progress.value = value;
  progress.setAttribute("aria-label", label);
}

/** Show `text` there, or nothing at all where it is empty; what is there already is left alone. */
export function write(root, selector, text) {
  const element = root.querySelector(selector);
  if (element.textContent !== text) {
    element.textContent = text;
  }
  element.hidden = text === "";
}

function short(value) {
  return typeof value === "number" ? String(Number(value.toPrecision(6))) : String(value);
}

function whole(number) {
  return Math.round(number).toLocaleString("en");
}

function duration(seconds) {
  if (seconds < 100) {
    return `${Math.max(0, Math.round(seconds))} s`;
  }
  if (seconds < 6_000) {
    return `${Math.round(seconds / 60)} min`;
  }
  return seconds < 172_800 ? `${Math.round(seconds / 3_600)} h` : `${Math.round(seconds / 86_400)} d`;
}
