// A new client for every operation. Usage: loop.js CLIENT [alone|threads|cluster]
// CLIENT is memjs, memcached, memcache, net, tls, or net with a login. The second argument says what makes the
// clients: the program itself, four threads, or four processes of a cluster.
// Ends with the line ANSWERED WRONG FDS.
'use strict';
const fs = require('fs');
const net = require('net');

const [host, port] = process.env.APP_SERVER.split(':');
const valueOf = (key) => `value-of-${key}`;
const openFiles = () => fs.readdirSync('/proc/self/fd').length;

async function withMemjs(key) {
  const client = require('memjs').Client.create(process.env.APP_SERVER, { timeout: 10 });
  await client.set(key, valueOf(key), {});
  const { value } = await client.get(key);
  client.quit();
  return value.toString();
}

function withMemcached(key) {
  const Memcached = require('memcached');
  const client = new Memcached(process.env.APP_SERVER, { timeout: 10000 });
  return new Promise((resolve, reject) => {
    client.set(key, valueOf(key), 60, (error) => error ? reject(error) :
      client.get(key, (error, value) => {
        client.end();
        error ? reject(error) : resolve(value);
      }));
  });
}

async function withMemcache(key) {
  const { Memcache } = require('memcache');
  const client = new Memcache({ nodes: [process.env.APP_SERVER], timeout: 10000 });
  await client.set(key, valueOf(key));
  const value = await client.get(key);
  await client.quit();
  return value;
}

// The value is in the third line behind LOGIN's answers.
function dialogue(connection, key, login = '', answers = 0) {
  return new Promise((resolve, reject) => {
    const value = valueOf(key);
    let answer = '';
    connection.write(`${login}set ${key} 0 0 ${value.length}\r\n${value}\r\nget ${key}\r\n`);
    connection.on('error', reject);
    connection.on('data', (data) => {
      answer += data;
      if (answer.endsWith('END\r\n'))
        connection.end();
    });
    connection.on('close', () => resolve(answer.split('\r\n')[answers + 2]));
  });
}

function withNet(key) {
  return dialogue(net.connect(port, host), key);
}

function withTls(key) {
  return dialogue(require('tls').connect({ port, host, rejectUnauthorized: false }), key);
}

function withLogin(key) {
  return dialogue(net.connect(port, host), key, 'set login 0 0 10\r\nbob secret\r\n', 1);
}

const LOOKUPS = {
  memjs: withMemjs, memcached: withMemcached, memcache: withMemcache,
  net: withNet, tls: withTls, login: withLogin,
};
const PARTS = 4;

// Looks up the keys from FIRST, every STEPth, AT_A_TIME at a time: how many were right and wrong.
async function lookUpAll(first, step, atATime) {
  const lookUp = LOOKUPS[process.argv[2]];
  const operations = Number(process.env.APP_OPERATIONS);
  let next = first;
  const count = { answered: 0, wrong: 0 };
  async function worker() {
    while (next < operations) {
      const key = `key-${next}`;
      next += step;
      const value = await lookUp(key);
      if (value === valueOf(key)) {
        count.answered++;
      } else {
        count.wrong++;
        console.error(`${key} has ${value}`);
      }
    }
  }
  await Promise.all(Array.from({ length: atATime }, worker));
  return count;
}

const concurrency = Number(process.env.APP_CONCURRENCY);
const lookUpPart = (part) => lookUpAll(part, PARTS, concurrency / PARTS);

// PART(number) gives the emitter of one message, the part's count.
async function inParts(part) {
  const counts = await Promise.all(Array.from({ length: PARTS }, (_, number) =>
    new Promise((resolve) => part(number).on('message', resolve))));
  return counts.reduce((sum, one) => ({
    answered: sum.answered + one.answered, wrong: sum.wrong + one.wrong,
  }));
}

async function main() {
  const cluster = require('cluster');
  const threads = require('worker_threads');
  if (!threads.isMainThread) {
    threads.parentPort.postMessage(await lookUpPart(threads.workerData));
    return;
  }
  if (cluster.isWorker) {
    process.send(await lookUpPart(Number(process.env.PART)), () => process.disconnect());
    return;
  }
  const files = openFiles();
  const { answered, wrong } = await {
    alone: () => lookUpAll(0, 1, concurrency),
    threads: () => inParts((number) =>
      new threads.Worker(__filename, { argv: process.argv.slice(2), workerData: number })),
    cluster: () => inParts((number) => cluster.fork({ PART: number })),
  }[process.argv[3] || 'alone']();
  await new Promise((resolve) => setTimeout(resolve, 100));
  console.log(answered, wrong, openFiles() - files);
  process.exit(answered === Number(process.env.APP_OPERATIONS) ? 0 : 1);
}

main();
