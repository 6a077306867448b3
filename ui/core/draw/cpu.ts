import { laidBack } from "../geometry.ts";
import { STEPS } from "../look.ts";
import { type Frame, Laid, type Layer, tapsIn } from "./layer.ts";

export class CpuPainter {
  private laid = new Laid<Float32Array>();

  paint(context: CanvasRenderingContext2D, layer: Layer, frame: Frame): void {
    const shares = this.laid.get(layer, frame, () => sharesOn(layer, frame));
    const palette = new Uint32Array(layer.colors.slice().buffer);
    const dark = new Uint32Array(new Uint8ClampedArray([0, 0, 0, 255 * layer.shade]).buffer)[0];
    const image = context.createImageData(frame.across.pixels, frame.down.pixels);
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < pixels.length; i++)
      pixels[i] = shares[i] < 0 ? dark : palette[(shares[i] * (STEPS - 1) + 0.5) | 0];
    context.putImageData(image, 0, 0);
  }
}

/** Shares on pixels; -1 where the model didn't look. */
function sharesOn(layer: Layer, frame: Frame): Float32Array {
  const { across, down } = tapsIn(layer, frame);
  const found = laidBack(layer.shares, across, down);
  const width = across.seen.length;
  for (let i = 0; i < found.length; i++)
    if (!across.seen[i % width] || !down.seen[(i / width) | 0]) found[i] = -1;
  return found;
}
