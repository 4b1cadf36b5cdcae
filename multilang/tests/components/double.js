// A bolt in JavaScript: doubles numbers. With the argument `msgpack` it asks for the faster frames.
'use strict';
const fs = require('fs');
const path = require('path');

// As much of MessagePack as the protocol needs.
function pack(value, out) {
  if (value === null) out.push(Buffer.from([0xc0]));
  else if (typeof value === 'boolean') out.push(Buffer.from([value ? 0xc3 : 0xc2]));
  else if (typeof value === 'number') {
    const bytes = Buffer.alloc(9);
    if (Number.isSafeInteger(value)) { bytes[0] = 0xd3; bytes.writeBigInt64BE(BigInt(value), 1); }
    else { bytes[0] = 0xcb; bytes.writeDoubleBE(value, 1); }
    out.push(bytes);
  } else if (typeof value === 'string') {
    const text = Buffer.from(value);
    const head = Buffer.alloc(5);
    head[0] = 0xdb; head.writeUInt32BE(text.length, 1);
    out.push(head, text);
  } else {
    const entries = Array.isArray(value) ? value : Object.entries(value).flat(1);
    const head = Buffer.alloc(5);
    head[0] = Array.isArray(value) ? 0xdd : 0xdf;
    head.writeUInt32BE(Array.isArray(value) ? value.length : entries.length / 2, 1);
    out.push(head);
    entries.forEach((entry) => pack(entry, out));
  }
}

function unpack(bytes) {
  let at = 0;
  const take = (n) => { at += n; return at - n; };
  const text = (n) => { const from = take(n); return bytes.toString('utf8', from, from + n); };
  const list = (n) => Array.from({ length: n }, next);
  const map = (n) => Object.fromEntries(Array.from({ length: n }, () => [next(), next()]));
  function next() {
    const tag = bytes[take(1)];
    if (tag <= 0x7f) return tag;
    if (tag <= 0x8f) return map(tag & 0xf);
    if (tag <= 0x9f) return list(tag & 0xf);
    if (tag <= 0xbf) return text(tag & 0x1f);
    if (tag >= 0xe0) return tag - 256;
    switch (tag) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xca: return bytes.readFloatBE(take(4));
      case 0xcb: return bytes.readDoubleBE(take(8));
      case 0xcc: return bytes[take(1)];
      case 0xcd: return bytes.readUInt16BE(take(2));
      case 0xce: return bytes.readUInt32BE(take(4));
      case 0xcf: return Number(bytes.readBigUInt64BE(take(8)));
      case 0xd0: return bytes.readInt8(take(1));
      case 0xd1: return bytes.readInt16BE(take(2));
      case 0xd2: return bytes.readInt32BE(take(4));
      case 0xd3: return Number(bytes.readBigInt64BE(take(8)));
      case 0xd9: return text(bytes[take(1)]);
      case 0xda: return text(bytes.readUInt16BE(take(2)));
      case 0xdb: return text(bytes.readUInt32BE(take(4)));
      case 0xdc: return list(bytes.readUInt16BE(take(2)));
      case 0xdd: return list(bytes.readUInt32BE(take(4)));
      case 0xde: return map(bytes.readUInt16BE(take(2)));
      case 0xdf: return map(bytes.readUInt32BE(take(4)));
      default: throw new Error(`the tag ${tag} is not used here`);
    }
  }
  return next();
}

let packed = false;
function send(messages) {
  if (!packed) {
    process.stdout.write(messages.map((message) => `${JSON.stringify(message)}\nend\n`).join(''));
    return;
  }
  const parts = [];
  pack(messages, parts);
  const body = Buffer.concat(parts);
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length, 0);
  process.stdout.write(Buffer.concat([head, body]));
}

function answer(message) {
  if (message.pidDir) {
    fs.closeSync(fs.openSync(path.join(message.pidDir, String(process.pid)), 'w'));
    const frames = process.argv[2] === 'msgpack' && message.conf['galerna.frames'].includes('msgpack');
    send([frames ? { pid: process.pid, frames: 'msgpack' } : { pid: process.pid }]);
    packed = frames;
    return [{ command: 'log', level: 3, msg: `ready as ${message.context.componentid}` }];
  }
  if (message.stream === '__heartbeat') return [{ command: 'sync' }];
  const doubled = message.tuple.map((value) => (typeof value === 'number' ? value * 2 : value + value));
  return [
    { command: 'emit', anchors: [message.id], tuple: doubled, need_task_ids: false },
    { command: 'metrics', name: 'last_doubled', params: message.tuple.at(-1) },
    { command: 'ack', id: message.id },
  ];
}

let buffer = Buffer.alloc(0);
process.stdin.on('data', (chunk) => {
  buffer = Buffer.concat([buffer, chunk]);
  const answers = [];
  for (;;) {
    if (packed) {
      if (buffer.length < 4 || buffer.length < 4 + buffer.readUInt32BE(0)) break;
      const length = buffer.readUInt32BE(0);
      unpack(buffer.subarray(4, 4 + length)).forEach((message) => answers.push(...answer(message)));
      buffer = buffer.subarray(4 + length);
    } else {
      const end = buffer.indexOf('\nend\n');
      if (end < 0) break;
      const message = JSON.parse(buffer.toString('utf8', 0, end));
      buffer = buffer.subarray(end + 5);
      answers.push(...answer(message));
    }
  }
  if (answers.length > 0) send(answers);
});
process.stdin.on('end', () => process.exit(0));
