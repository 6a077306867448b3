// What is painted over a picture, whoever paints it.

import { type Grid, type Side, tapsOf } from "../geometry.ts";
import { blank, type Heat, shades } from "../look.ts";
import type { Box } from "../wire.ts";

export interface Layer {
  /** Shares of the scale, 0..1. */
  shares: Grid;
  /** What the grid spans, in pixels of the picture. */
  area: Box;
  /** RGBA of shares from 0 to 1. */
  colors: Uint8ClampedArray;
  /** How much of the picture's light what the model didn't see loses, 0..1. */
  shade: number;
}

/** The part of a picture that a canvas shows. */
export interface Frame {
  across: Side;
  down: Side;
}

/** How dark what the model didn't see is drawn. */
export const UNSEEN = 0.82;

export function overlay(heat: Heat, area: Box): Layer {
  return { shares: heat.shares, area, colors: shades(heat), shade: blank(heat) ? 0 : 1 - UNSEEN };
}

export const frameOf = (canvas: HTMLCanvasElement, [left, top, right, bottom]: Box): Frame => ({
  across: { pixels: canvas.width, from: left, to: right },
  down: { pixels: canvas.height, from: top, to: bottom },
});

export const tapsIn = ({ shares, area }: Layer, { across, down }: Frame) => ({
  across: tapsOf(across, area[0], area[2], shares.columns),
  down: tapsOf(down, area[1], area[3], shares.rows),
});

/** The last few grids that were laid on pixels, so that another look is only other colours. */
export class Laid<T> {
  private kept: { data: Float32Array; key: string; pixels: number; made: T }[] = [];

  constructor(
    private free: (made: T) => void = () => {},
    private most = 24e6,
  ) {}

  get({ shares, area }: Layer, frame: Frame, make: () => T): T {
    const key = JSON.stringify([area, frame]);
    const at = this.kept.findIndex((one) => one.data === shares.data && one.key === key);
    const pixels = frame.across.pixels * frame.down.pixels;
    const found = at < 0 ? { data: shares.data, key, pixels, made: make() } : this.kept.splice(at, 1)[0];
    this.kept.unshift(found);
    let sum = 0;
    const fits = this.kept.findIndex((one, place) => place > 0 && ((sum += one.pixels) > this.most || place > 48));
    if (fits > 0) for (const { made } of this.kept.splice(fits)) this.free(made);
    return found.made;
  }
}
