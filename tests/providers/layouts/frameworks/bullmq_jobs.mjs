// BullMQ: a worker that runs two jobs, and jobs waiting, of several priorities, delayed, and waiting for a child.

import { createRequire } from "node:module";
import { setTimeout } from "node:timers/promises";

// The package lies in the environment, not beside this file.
const { FlowProducer, Queue, Worker } = createRequire(process.argv[3])("bullmq");
const { hostname: host, port } = new URL(process.argv[2]);
const connection = { host, port: Number(port), maxRetriesPerRequest: null };
const mail = new Queue("mail", { connection });
let running = 0;
const worker = new Worker("mail", async () => { running += 1; await setTimeout(60_000); }, { connection, concurrency: 2 });
await mail.add("work", {});
await mail.add("work", {});
while (running < 2) await setTimeout(10);
const before = Date.now() / 1000;
await mail.add("work", {}, { priority: 5 });
const after = Date.now() / 1000;
await setTimeout(50);
for (let index = 0; index < 3; index += 1) await mail.add("work", {});
await mail.add("work", {}, { priority: 7 });
for (let index = 0; index < 4; index += 1) await mail.add("work", {}, { delay: 60_000 });
await new FlowProducer({ connection }).add({
  name: "parent", queueName: "mail", children: [{ name: "child", queueName: "other" }],
});
const paused = new Queue("paused", { connection });
await paused.pause();
await paused.add("work", {});
await paused.add("work", {});
console.log(JSON.stringify([
  { queue: "mail", waiting: 5, running: 2, delayed: 4, oldest: [before, after] },
  { queue: "other", waiting: 1, running: 0, delayed: 0, oldest: [after, Date.now() / 1000] },
  { queue: "paused", waiting: 2, running: 0, delayed: 0, oldest: [after, Date.now() / 1000] },
]));
process.stdin.on("end", () => process.exit()).resume();
