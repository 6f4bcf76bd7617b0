// A web server that asks memcached on a new connection for every request: node --expose-gc page.js
// PORT. Runs a program now and then while connections idle, and tidies up, so that what its memory
// grows by is not what the collector has not come to yet.
'use strict';
const { spawn } = require('child_process');
const http = require('http');
const net = require('net');

const [host, port] = process.env.APP_SERVER.split(':');
let requests = 0;

function lookUp(key, done) {
  const value = `value-of-${key}`;
  const connection = net.connect(port, host);
  let answer = '';
  connection.write(`set ${key} 0 0 ${value.length}\r\n${value}\r\nget ${key}\r\n`);
  connection.on('error', () => {});
  connection.on('data', (data) => {
    answer += data;
    if (answer.endsWith('END\r\n'))
      connection.end();
  });
  connection.on('close', () => done(answer.split('\r\n')[2]));
}

http.createServer((request, response) => {
  if (requests++ % 50 === 0)
    spawn('true');
  if (requests % 500 === 0)
    global.gc();
  lookUp(request.url.slice(2), (value) => {
    response.statusCode = value ? 200 : 500;
    response.end(value);
  });
}).listen(Number(process.argv[2]), '127.0.0.1');
