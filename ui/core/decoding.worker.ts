import { decoded } from "./decoding.ts";

onmessage = ({ data: { number, bytes } }: MessageEvent<{ number: number; bytes: ArrayBuffer }>) => {
  try {
    const answer = decoded(bytes);
    const moved = Object.values(answer.arrays).map(({ data }) => data.buffer);
    postMessage({ number, answer }, { transfer: moved });
  } catch (error) {
    postMessage({ number, error: String(error) });
  }
};
