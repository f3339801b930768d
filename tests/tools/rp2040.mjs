// An emulated Raspberry Pi Pico behind a TCP port: UART0 is the connection.
//
// node rp2040.mjs FOLDER_OF_rp2040js IMAGE BAUD
//
// Prints the port of 127.0.0.1 that it listens on; reads IMAGE and switches the board on when
// someone connects, and ends when they hang up. The chip's first boot stage is done here: it copies
// 256 bytes of the flash to RAM, checks them and runs them ("RP2040 Datasheet", 2.8.1.3). Ends with
// code 3 when the checksum is wrong, with code 4 when a byte comes at another line rate than BAUD.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, imagePath, baud] = process.argv.slice(2);
const library = pathToFileURL(resolve(folder, 'dist/esm/index.js')).href;
const { ConsoleLogger, LogLevel, Simulator } = await import(library);

const STAGE = 0x20041f00; // where the first stage copies the second one
const RATE_TOLERANCE = 0.01;

function fail(code, message) {
  console.error(message);
  process.exit(code);
}

function checksum(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) {
    value = (value ^ (byte << 24)) >>> 0;
    for (let bit = 0; bit < 8; bit++) {
      value = ((value << 1) ^ (value >>> 31 ? 0x04c11db7 : 0)) >>> 0;
    }
  }
  return value;
}

function powerUp(connection) {
  const image = readFileSync(imagePath);
  if (image.readUInt32LE(252) !== checksum(image.subarray(0, 252))) {
    fail(3, 'the second boot stage has a wrong checksum');
  }
  const simulator = new Simulator();
  const { rp2040 } = simulator;
  const uart = rp2040.uart[0];
  rp2040.logger = new ConsoleLogger(LogLevel.Error);
  rp2040.flash.set(image);
  rp2040.sram.set(image.subarray(0, 256), STAGE - 0x20000000);
  rp2040.core.SP = 0x20042000;
  rp2040.core.PC = STAGE;

  const incoming = [];
  const outgoing = [];
  connection.on('data', (data) => incoming.push(...data));
  uart.onByte = (byte) => {
    if (Math.abs(uart.baudRate / Number(baud) - 1) > RATE_TOLERANCE) {
      fail(4, `line rate ${uart.baudRate}, clocks ${rp2040.clkSys} and ${rp2040.clkPeri} Hz`);
    }
    outgoing.push(byte);
  };

  // As Simulator.execute does, in slices short enough to keep the FIFO filled.
  const run = () => {
    for (let slice = 0; slice < 200; slice++) {
      while (incoming.length && !uart.rxFIFO.full) {
        uart.feedByte(incoming.shift());
      }
      const nanoseconds = 1e9 / rp2040.clkSys;
      for (let i = 0; i < 1000; i++) {
        simulator.clock.tick(rp2040.core.executeInstruction() * nanoseconds);
      }
    }
    if (outgoing.length) {
      connection.write(Buffer.from(outgoing.splice(0)));
    }
    setImmediate(run);
  };
  run();
}

const server = createServer((connection) => {
  connection.setNoDelay(true);
  connection.on('error', () => process.exit(0));
  connection.on('close', () => process.exit(0));
  powerUp(connection);
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
