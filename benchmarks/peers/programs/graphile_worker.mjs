// graphile-worker with its local queue and completion in batches: https://worker.graphile.org/docs/performance
import fs from "node:fs";
import { createRequire } from "node:module";

// Packages are found in the peer's own environment, which is where it is started, and not beside this file.
const require = createRequire(`${process.cwd()}/`);
const { run, runMigrations, makeWorkerUtils, Logger } = require("graphile-worker");
const { Client } = require("pg");

const URL = process.env.BENCH_URL;
const PORTION = 5_000;
const quiet = new Logger(() => () => {});
const preset = {
  worker: {
    connectionString: URL,
    concurrentJobs: 24,
    maxPoolSize: 10,
    pollInterval: 2_000,
    preparedStatements: true,
    logger: quiet,
    localQueue: { size: 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
  },
};

async function withClient(use) {
  const client = new Client(URL);
  await client.connect();
  try {
    await use(client);
  } finally {
    await client.end();
  }
}

const verbs = {
  async prepare() {
    await runMigrations({ connectionString: URL, logger: quiet });
  },
  async enqueue(count) {
    await withClient(async (client) => {
      await client.query("truncate graphile_worker._private_jobs");
      for (let start = 0; start < count; start += PORTION) {
        await client.query(
          `select from graphile_worker.add_jobs(array(
             select json_populate_record(null::graphile_worker.job_spec,
               json_build_object('identifier', 'no_op', 'payload', json_build_object('n', number)))
             from generate_series($1::int, $2::int) as number))`,
          [start, Math.min(count, start + PORTION) - 1],
        );
      }
    });
  },
  async produce(count, pause_s) {
    const utils = await makeWorkerUtils({ connectionString: URL, logger: quiet });
    for (let number = 0; number < count; number++) {
      const began = clock_s();
      await utils.addJob("note", { number });
      console.log(number, began, clock_s());
      if (pause_s > 0) await new Promise((done) => setTimeout(done, pause_s * 1_000));
    }
    await utils.release();
  },
  async work() {
    const runner = await run({
      preset,
      taskList: {
        no_op: async () => {},
        note: async ({ number }) => fs.appendFileSync(process.env.BENCH_STARTS, `${number} ${clock_s()}\n`),
      },
    });
    await runner.promise;
  },
};

function clock_s() {
  return (performance.timeOrigin + performance.now()) / 1_000;
}

const [verb, ...words] = process.argv.slice(2);
await verbs[verb](...words.map(Number));
