/**
 * Drawing in step with the screen: whatever happens between two frames is drawn in one go.
 *
 * @module frames
 */

/**
 * @param {(nowMs: number) => void} draw
 * @returns {() => void} Asks for `draw` in the next frame; asking again before that changes nothing.
 */
export function inFrames(draw) {
  let isAsked = false;
  return () => {
    if (isAsked) return;
    isAsked = true;
    requestAnimationFrame((nowMs) => {
      isAsked = false;
      draw(nowMs);
    });
  };
}

/**
 * @param {number} ms
 * @param {AbortSignal} signal
 * @returns {Promise<void>} Rejects with the signal's reason, where it is given before.
 */
export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal.addEventListener("abort", stop, { once: true });
  });
}

/**
 * Puts a text where another one stands; nothing is laid out again where it is the same.
 * @param {Element} element
 * @param {string} text
 */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
