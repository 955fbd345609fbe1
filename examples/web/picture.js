// @ts-check
/**
 * Draw values as a grid of colours, row by row: blue below zero, white at zero, red above.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {Float32Array} values
 */
export function draw(canvas, values) {
  const columns = Math.min(values.length, 8 * Math.ceil(Math.sqrt(2 * values.length) / 8));
  canvas.width = columns;
  canvas.height = Math.ceil(values.length / columns);
  const context = canvas.getContext("2d");
  if (context === null) throw new Error("this browser has no 2-D canvas");
  const image = context.createImageData(canvas.width, canvas.height);
  const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
  values.forEach((value, place) => {
    const faded = Math.round(255 * (1 - Math.abs(value) / largest));
    image.data.set(value < 0 ? [faded, faded, 255, 255] : [255, faded, faded, 255], 4 * place);
  });
  context.putImageData(image, 0, 0);
}
