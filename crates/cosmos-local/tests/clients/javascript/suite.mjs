// The JavaScript SDK, unmodified, against an account of several regions.

import "./items.mjs";
import "./queries.mjs";
import "./feed.mjs";
import "./regions.mjs";
import "./throughput.mjs";
