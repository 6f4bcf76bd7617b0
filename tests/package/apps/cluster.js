// Two workers that answer /?KEY with its value, each request with a connection of its own.
'use strict';
const cluster = require('cluster');
const http = require('http');
const net = require('net');

function ask(connection, request, end) {
  return new Promise((resolve, reject) => {
    let answer = '';
    connection.removeAllListeners('data');
    connection.on('error', reject);
    connection.on('data', (bytes) => {
      answer += bytes;
      if (answer.endsWith(end)) resolve(answer);
    });
    connection.write(request);
  });
}

async function lookUp(key) {
  const connection = net.connect(11211, '127.0.0.1');
  const found = await ask(connection, `get ${key}\r\n`, 'END\r\n');
  const value = `value-of-${key}`;
  if (!found.startsWith('VALUE')) await ask(connection, `set ${key} 0 0 ${value.length}\r\n${value}\r\n`, 'STORED\r\n');
  connection.end();
  return found.startsWith('VALUE') ? found.split('\r\n')[1] : value;
}

if (cluster.isPrimary) {
  cluster.fork();
  cluster.fork();
} else {
  http.createServer(async (request, response) => {
    response.end(await lookUp(request.url.split('?')[1]));
  }).listen(8000, '127.0.0.1');
}
