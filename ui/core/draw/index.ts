// Maps over pictures, drawn as hookmap.render.overlay does, to within 2 of 255 (a test holds it).

import type { Box } from "../wire.ts";
import type { Size } from "../geometry.ts";
import { CpuPainter } from "./cpu.ts";
import { GlPainter } from "./gl.ts";
import type { Layer } from "./layer.ts";
import { paintBy } from "./painting.ts";

export { overlay, type Layer } from "./layer.ts";

/**
 * Paints by the graphics card where there is one; else, and from when it is lost on, by the processor, which is faster
 * than a graphics card in software.
 */
export class Painter {
  private cpu = new CpuPainter();
  private gl: GlPainter | null;

  /** @param lost is called when all has to be painted anew */
  constructor(lost: () => void = () => {}, by: "best" | "gl" | "cpu" = "best") {
    const fall = () => {
      this.gl = null;
      lost();
    };
    this.gl = by === "cpu" ? null : GlPainter.create(fall, { slow: by === "gl" });
  }

  get by(): "gl" | "cpu" {
    return this.gl ? "gl" : "cpu";
  }

  /** Paint a layer onto the whole of a canvas, which shows `part` of the picture. */
  paint(canvas: HTMLCanvasElement, layer: Layer, picture: Size, part?: Box): void {
    paintBy((frame) => (this.gl?.fits(frame) ? this.gl : this.cpu), canvas, layer, picture, part);
  }
}
