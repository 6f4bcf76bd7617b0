// A new client for every operation. Usage: loop.js memjs|memcached|net
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

function withNet(key) {
  return new Promise((resolve, reject) => {
    const value = valueOf(key);
    const connection = net.connect(port, host);
    let answer = '';
    connection.write(`set ${key} 0 0 ${value.length}\r\n${value}\r\nget ${key}\r\n`);
    connection.on('error', reject);
    connection.on('data', (data) => {
      answer += data;
      if (answer.endsWith('END\r\n'))
        connection.end();
    });
    connection.on('close', () => resolve(answer.split('\r\n')[2]));
  });
}

async function main() {
  const lookUp = { memjs: withMemjs, memcached: withMemcached, net: withNet }[process.argv[2]];
  const operations = Number(process.env.APP_OPERATIONS);
  let next = 0, answered = 0, wrong = 0;
  const files = openFiles();
  async function worker() {
    while (next < operations) {
      const key = `key-${next++}`;
      const value = await lookUp(key);
      if (value === valueOf(key)) {
        answered++;
      } else {
        wrong++;
        console.error(`${key} has ${value}`);
      }
    }
  }
  await Promise.all(Array.from({ length: Number(process.env.APP_CONCURRENCY) }, worker));
  await new Promise((resolve) => setTimeout(resolve, 100));
  console.log(answered, wrong, openFiles() - files);
  process.exit(answered === operations ? 0 : 1);
}

main();
