import { expect, test } from "vitest";
import { halves, parse } from "../core/safetensors.ts";

function file(header: object, bytes: Uint8Array): ArrayBuffer {
  const text = new TextEncoder().encode(JSON.stringify(header));
  const whole = new Uint8Array(8 + text.length + bytes.length);
  new DataView(whole.buffer).setBigUint64(0, BigInt(text.length), true);
  whole.set(text, 8);
  whole.set(bytes, 8 + text.length);
  return whole.buffer;
}

test("arrays come with their shapes, whatever their offset", () => {
  const bytes = new Uint8Array([...new Uint8Array([1, 2, 3]), ...new Uint8Array(new Float32Array([1.5, -2]).buffer)]);
  const header = {
    __metadata__: { answer: '{"a":"é"}' },
    byte: { dtype: "U8", shape: [3], data_offsets: [0, 3] },
    real: { dtype: "F32", shape: [1, 2], data_offsets: [3, 11] },
  };
  const { metadata, arrays } = parse(file(header, bytes));
  expect(JSON.parse(metadata.answer)).toEqual({ a: "é" });
  expect(arrays.real).toEqual({ shape: [1, 2], data: new Float32Array([1.5, -2]) });
  expect(arrays.byte.data).toEqual(new Float32Array([1, 2, 3]));
});

test("float16 is read exactly", () => {
  const coded = new Uint16Array([0, 0x8000, 0x3c00, 0xc000, 0x7bff, 0x0001, 0x03ff, 0x3555, 0x7c00, 0xfc00, 0x7e00]);
  const meant = [0, -0, 1, -2, 65504, 2 ** -24, 1023 * 2 ** -24, 0.333251953125, Infinity, -Infinity, NaN];
  expect([...halves(coded)]).toEqual(meant.map(Math.fround));
});

test("what isn't one is refused", () => {
  expect(() => parse(new ArrayBuffer(3))).toThrow("not a safetensors file");
  expect(() => parse(new Uint8Array([255, 0, 0, 0, 0, 0, 0, 0, 1]).buffer)).toThrow("longer than the file");
  const odd = file({ a: { dtype: "F8_E4M3", shape: [1], data_offsets: [0, 1] } }, new Uint8Array(1));
  expect(() => parse(odd)).toThrow("F8_E4M3");
});
