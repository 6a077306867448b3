// Reads the safetensors format: a length, a JSON header, then the arrays' bytes.

/** Numbers of a shape, the last axis fastest. */
export interface Tensor {
  shape: number[];
  data: Float32Array;
}

export interface Archive {
  metadata: Record<string, string>;
  arrays: Record<string, Tensor>;
}

interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

const NUMBERS = {
  F64: Float64Array,
  F32: Float32Array,
  I32: Int32Array,
  I16: Int16Array,
  U16: Uint16Array,
  I8: Int8Array,
  U8: Uint8Array,
  BOOL: Uint8Array,
};

export function parse(buffer: ArrayBuffer): Archive {
  if (buffer.byteLength < 8) throw new Error("not a safetensors file: it ends within its first 8 bytes");
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const start = 8 + length;
  if (!(start <= buffer.byteLength)) throw new Error("not a safetensors file: its header is longer than the file");
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const { __metadata__: metadata = {}, ...entries } = header as Record<string, Entry> & {
    __metadata__?: Record<string, string>;
  };
  const arrays: Record<string, Tensor> = {};
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(entries)) {
    const bytes = buffer.slice(start + data_offsets[0], start + data_offsets[1]); // aligned, whatever the offset
    arrays[name] = { shape, data: floats(bytes, dtype) };
  }
  return { metadata, arrays };
}

function floats(bytes: ArrayBuffer, dtype: string): Float32Array {
  if (dtype === "F32") return new Float32Array(bytes);
  if (dtype === "F16") return halves(new Uint16Array(bytes));
  if (!(dtype in NUMBERS)) throw new Error(`arrays of ${dtype} can't be read`);
  return Float32Array.from(new NUMBERS[dtype as keyof typeof NUMBERS](bytes));
}

/** Float16 as float32, exactly. */
export function halves(coded: Uint16Array): Float32Array {
  const found = new Float32Array(coded.length);
  for (let i = 0; i < coded.length; i++) {
    const bits = coded[i];
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    const size =
      exponent === 0
        ? fraction * 2 ** -24
        : exponent === 31
          ? fraction
            ? NaN
            : Infinity
          : (1 + fraction / 1024) * 2 ** (exponent - 15);
    found[i] = bits & 0x8000 ? -size : size;
  }
  return found;
}
