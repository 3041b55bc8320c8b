// Follows a report that is being made: twice a second it asks for its state, until that is final.
"use strict";

const POLL_MS = 500;
const progress = document.getElementById("progress");
const bar = document.getElementById("bar");
const step = document.getElementById("step");
const badge = document.getElementById("state");

const WORDS = { waiting: "Waiting for a worker", stopping: "Stopping" };

function show(report) {
  bar.max = report.of;
  bar.value = report.done;
  badge.className = `state ${report.state}`;
  badge.textContent = report.state[0].toUpperCase() + report.state.slice(1);
  const words = WORDS[report.state] ?? report.step;
  // A screen reader reads out each change, so nothing is written that is there already.
  if (step.textContent !== words) step.textContent = words;
}

async function watch() {
  try {
    const response = await fetch(progress.dataset.stateUrl);
    if (response.ok) {
      const report = await response.json();
      if (report.finished) return location.reload();
      show(report);
    }
  } catch {
    // The server is not to be reached just now; it is asked again.
  }
  setTimeout(watch, POLL_MS);
}

watch();
