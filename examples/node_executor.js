// Count the words of a file: an executor in JavaScript, for Node.
//
//     reproq-prefork --command "node examples/node_executor.js"
//     reproq-prefork enqueue '{"file": "README.md"}'
//
// JSON.parse rounds integers beyond 2^53: send those as strings.
"use strict";
const fs = require("node:fs");

function countWords(payload) {
  if (typeof payload.file !== "string") {
    throw Object.assign(new Error("the payload names no file"), { retry: false });
  }
  console.log(`counting the words of ${payload.file}`);
  return { words: fs.readFileSync(payload.file, "utf8").split(/\s+/).filter(Boolean).length };
}

try {
  const [option, text] = process.argv.slice(-2);
  if (option !== "--payload") throw new Error("usage: node node_executor.js --payload JSON");
  const result = countWords(JSON.parse(text === "-" ? fs.readFileSync(0, "utf8") : text));
  // The result has its own descriptor, so console.log is free for the log.
  fs.writeFileSync(Number(process.env.REPROQ_RESULT_FD ?? 1), JSON.stringify(result));
} catch (error) {
  const { message, name, stack, retry } = error;
  console.error(JSON.stringify({ message, exception: name, traceback: stack, retry }));
  process.exitCode = 1;
}
