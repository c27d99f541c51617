/** Waiting in tests: for a condition, with a deadline, never for a time. */

/** Waits until `condition` holds. Throws after `deadlineMs` (default: 10,000), naming `what` it waited for. */
export async function waitFor(
  condition: () => boolean | Promise<boolean>,
  options: { deadlineMs?: number; what?: string } = {},
): Promise<void> {
  const { deadlineMs = 10_000, what = condition.toString() } = options;
  const end = performance.now() + deadlineMs;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`waited ${deadlineMs} ms in vain for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
