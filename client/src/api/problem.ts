/**
 * What went wrong with a request, in words for the person in front of the page: problem details (RFC 9457) where the
 * server sent them, and a sentence of our own where it did not.
 */

/** What is wrong with one field of a request body. */
export interface FieldError {
  /** JSON path such as `$[2].value`. */
  readonly path: string;
  readonly message: string;
}

/** A request that was not answered as asked. */
export class RequestError extends Error {
  override readonly name = "RequestError";

  constructor(
    /** HTTP status; 0 when no answer came at all. */
    readonly status: number,
    readonly title: string,
    readonly detail: string,
    readonly errors: readonly FieldError[] = [],
  ) {
    super(detail ? `${title}: ${detail}` : title);
  }

  /** Whether the same request may succeed later: no answer, throttled, or the server's own trouble. */
  get isTransient(): boolean {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }

  /** Messages about the field `name` of a single object (`$.name`). */
  messagesFor(name: string): string[] {
    return this.errors.filter((error) => fieldOf(error.path) === name).map((error) => error.message);
  }

  /** Messages about anything but the fields `names`. */
  messagesBeside(names: readonly string[]): string[] {
    const beside = this.errors.filter((error) => !names.includes(fieldOf(error.path)));
    return beside.map((error) => `${error.path}: ${error.message}`);
  }
}

/** The last field name of a JSON path; empty for the document itself. */
function fieldOf(path: string): string {
  return /\.([^.[\]]+)$/.exec(path)?.[1] ?? "";
}

/** Longest part of a body without problem details that is shown. */
const MAX_QUOTED = 200;

/** Reads an error answer, whatever it is made of. */
export function parseProblem(status: number, statusText: string, body: string): RequestError {
  const title = statusText || `HTTP ${status}`;
  let json: unknown;
  try {
    json = JSON.parse(body);
  } catch {
    // Not JSON, such as the page of a proxy: its beginning is all there is to show.
    const text = body.replace(/\s+/g, " ").trim();
    return new RequestError(status, title, text.length > MAX_QUOTED ? `${text.slice(0, MAX_QUOTED)}…` : text);
  }
  if (!isRecord(json)) return new RequestError(status, title, "");
  const errors = Array.isArray(json.errors) ? json.errors.filter(isFieldError) : [];
  return new RequestError(
    status,
    typeof json.title === "string" && json.title ? json.title : title,
    typeof json.detail === "string" ? json.detail : "",
    errors.map(({ path, message }) => ({ path, message })),
  );
}

/** One sentence about any failure. */
export function describe(error: unknown): string {
  if (error instanceof Error) return error.message || error.name;
  return String(error);
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isFieldError(value: unknown): value is FieldError {
  return isRecord(value) && typeof value.path === "string" && typeof value.message === "string";
}
