import { laidBack } from "../geometry.ts";
import { STEPS } from "../look.ts";
import { type Frame, Laid, type Layer, tapsIn } from "./layer.ts";

export class CpuPainter {
  private laid = new Laid<Uint16Array>();
  private image = new ImageData(1, 1);

  paint(context: CanvasRenderingContext2D, layer: Layer, { across, down }: Frame): void {
    const steps = this.laid.get(layer, { across, down }, () => stepsOn(layer, { across, down }));
    const colors = new Uint32Array(STEPS + 1);
    colors.set(new Uint32Array(layer.colors.slice().buffer));
    colors[STEPS] = new Uint32Array(new Uint8ClampedArray([0, 0, 0, 255 * layer.shade]).buffer)[0];
    if (this.image.width !== across.pixels || this.image.height !== down.pixels)
      this.image = new ImageData(across.pixels, down.pixels);
    const pixels = new Uint32Array(this.image.data.buffer);
    for (let i = 0; i < pixels.length; i++) pixels[i] = colors[steps[i]];
    context.putImageData(this.image, 0, 0);
  }
}

/** Steps of the palette on pixels; one more than there are where the model didn't look. */
function stepsOn(layer: Layer, frame: Frame): Uint16Array {
  const { across, down } = tapsIn(layer, frame);
  const shares = laidBack(layer.shares, across, down);
  const found = new Uint16Array(shares.length);
  const width = across.seen.length;
  for (let y = 0, i = 0; y < down.seen.length; y++)
    for (let x = 0; x < width; x++, i++)
      found[i] = across.seen[x] && down.seen[y] ? shares[i] * (STEPS - 1) + 0.5 : STEPS;
  return found;
}
