import {
  bindFramebufferInfo,
  createBufferInfoFromArrays,
  createFramebufferInfo,
  createProgramInfo,
  createTexture,
  drawBufferInfo,
  type FramebufferInfo,
  type ProgramInfo,
  setBuffersAndAttributes,
  setUniforms,
} from "twgl.js";
import { range } from "../geometry.ts";
import { STEPS } from "../look.ts";
import { type Frame, Laid, type Layer } from "./layer.ts";

const CORNERS = `#version 300 es
in vec2 position;
void main() { gl_Position = vec4(position, 0, 1); }`;

// The grid on pixels, by the cubic kernel of geometry.ts; -1 where the model didn't look.
const LAY = `#version 300 es
precision highp float;
precision highp sampler2D;
uniform sampler2D grid;
uniform vec2 size, from, pace, low, span, limits;
out float share;
vec4 cubic(float at) {
  vec4 d = abs(vec4(at + 1., at, 1. - at, 2. - at));
  vec4 near = (1.5 * d - 2.5) * d * d + 1., far = ((-.5 * d + 2.5) * d - 4.) * d + 2.;
  return mix(far, near, vec4(lessThan(d, vec4(1))));
}
void main() {
  ivec2 last = textureSize(grid, 0) - 1;
  vec2 pixel = vec2(gl_FragCoord.x, size.y - gl_FragCoord.y);
  vec2 along = (from + pixel * pace - low) / span;
  if (any(lessThan(along, vec2(0))) || any(greaterThan(along, vec2(1)))) { share = -1.; return; }
  vec2 at = clamp(along * vec2(last + 1) - .5, vec2(0), vec2(last));
  ivec2 first = ivec2(floor(at)) - 1;
  vec4 across = cubic(fract(at.x)), down = cubic(fract(at.y));
  share = 0.;
  for (int y = 0; y < 4; y++)
    for (int x = 0; x < 4; x++)
      share += down[y] * across[x] * texelFetch(grid, clamp(first + ivec2(x, y), ivec2(0), last), 0).r;
  share = clamp(share, limits.x, limits.y);
}`;

const COLOR = `#version 300 es
precision highp float;
precision highp sampler2D;
uniform sampler2D shares, palette;
uniform float shade;
out vec4 color;
void main() {
  float share = texelFetch(shares, ivec2(gl_FragCoord.xy), 0).r;
  vec4 found = share < 0. ? vec4(0, 0, 0, shade) : texelFetch(palette, ivec2(share * ${STEPS - 1}. + .5, 0), 0);
  color = vec4(found.rgb * found.a, found.a);
}`;

/** One context, whose picture is copied to the canvases of whoever asks. */
export class GlPainter {
  private laid = new Laid<FramebufferInfo>(({ framebuffer, attachments }) => {
    this.gl.deleteFramebuffer(framebuffer);
    this.gl.deleteTexture(attachments[0] as WebGLTexture);
  });
  private lay: ProgramInfo;
  private color: ProgramInfo;
  private square;
  private palette: WebGLTexture;

  private constructor(
    private canvas: HTMLCanvasElement,
    private gl: WebGL2RenderingContext,
  ) {
    this.lay = createProgramInfo(gl, [CORNERS, LAY]);
    this.color = createProgramInfo(gl, [CORNERS, COLOR]);
    this.square = createBufferInfoFromArrays(gl, {
      position: { numComponents: 2, data: [-1, -1, 3, -1, -1, 3] },
    });
    this.palette = createTexture(gl, { width: STEPS, height: 1, ...exact(gl) });
  }

  /** Nothing where there's no WebGL2 that renders floats, or only a slow one and that isn't wanted. */
  static create(lost: () => void, { slow }: { slow: boolean }): GlPainter | null {
    const canvas = document.createElement("canvas");
    const gl = canvas.getContext("webgl2", { antialias: false, depth: false, failIfMajorPerformanceCaveat: !slow });
    if (!gl?.getExtension("EXT_color_buffer_float") || (!slow && inSoftware(gl))) return null;
    canvas.addEventListener("webglcontextlost", lost, { once: true });
    const painter = new GlPainter(canvas, gl);
    return painter.lay && painter.color ? painter : null;
  }

  /** Whether a canvas of this size can be drawn, as far as this is known before it is tried. */
  fits(frame: Frame): boolean {
    const most = this.gl.getParameter(this.gl.MAX_TEXTURE_SIZE) as number;
    return Math.max(frame.across.pixels, frame.down.pixels) <= most;
  }

  paint(context: CanvasRenderingContext2D, layer: Layer, frame: Frame): void {
    const { gl, canvas } = this;
    const [width, height] = [frame.across.pixels, frame.down.pixels];
    const shares = this.laid.get(layer, frame, () => this.shares(layer, frame));
    if (canvas.width < width) canvas.width = width;
    if (canvas.height < height) canvas.height = height;
    gl.bindTexture(gl.TEXTURE_2D, this.palette);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, STEPS, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(layer.colors));
    bindFramebufferInfo(gl, null);
    gl.viewport(0, 0, width, height);
    this.run(this.color, { shares: shares.attachments[0], palette: this.palette, shade: layer.shade });
    context.clearRect(0, 0, width, height);
    context.drawImage(canvas, 0, canvas.height - height, width, height, 0, 0, width, height);
  }

  private shares({ shares, area }: Layer, { across, down }: Frame): FramebufferInfo {
    const { gl } = this;
    const { columns, rows, data } = shares;
    const grid = createTexture(gl, { src: data, width: columns, height: rows, ...floats(gl), ...exact(gl) });
    const made = createFramebufferInfo(gl, [{ ...floats(gl), ...exact(gl) }], across.pixels, down.pixels);
    bindFramebufferInfo(gl, made);
    const steps = [across, down].map(({ from, to, pixels }) => (to - from) / pixels);
    this.run(this.lay, {
      grid,
      size: [across.pixels, down.pixels],
      from: [across.from, down.from],
      pace: steps,
      low: [area[0], area[1]],
      span: [area[2] - area[0], area[3] - area[1]],
      limits: range(data),
    });
    gl.deleteTexture(grid);
    return made;
  }

  private run(program: ProgramInfo, uniforms: Record<string, unknown>): void {
    this.gl.useProgram(program.program);
    setBuffersAndAttributes(this.gl, program, this.square);
    setUniforms(program, uniforms);
    drawBufferInfo(this.gl, this.square);
  }
}

/** Whether the card is only played: some browsers don't call that a caveat. */
function inSoftware(gl: WebGL2RenderingContext): boolean {
  const named = gl.getExtension("WEBGL_debug_renderer_info")?.UNMASKED_RENDERER_WEBGL ?? gl.RENDERER;
  return /swiftshader|llvmpipe|softpipe|software|basic render/i.test(String(gl.getParameter(named)));
}

const exact = (gl: WebGL2RenderingContext) => ({ min: gl.NEAREST, mag: gl.NEAREST, wrap: gl.CLAMP_TO_EDGE, auto: false });
const floats = (gl: WebGL2RenderingContext) => ({ internalFormat: gl.R32F, format: gl.RED, type: gl.FLOAT });
