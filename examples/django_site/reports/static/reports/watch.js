// Watches a report while it is being made: asks for its state twice a second, until it is final.
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
  // A screen reader reads each change aloud, so the same text is not written again.
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
    // The server cannot be reached now. It is asked again.
  }
  setTimeout(watch, POLL_MS);
}

watch();
