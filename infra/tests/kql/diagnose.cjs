// Queries by name as JSON on stdin; what is wrong with them, as JSON on stdout: [{ name, message, text }].
require("@kusto/language-service-next/bridge.js");
require("@kusto/language-service-next/Kusto.Language.Bridge.js");
const { GlobalState, KustoCode, Symbols } = globalThis.Kusto.Language;

// The columns that the queries read, of the tables that Application Insights fills in a workspace.
const tables = {
  AppAvailabilityResults: "(TimeGenerated: datetime, Success: bool, Location: string)",
  AppRequests:
    "(TimeGenerated: datetime, Name: string, Success: bool, AppRoleName: string, DurationMs: real, ResultCode: string)",
  AppTraces: "(TimeGenerated: datetime, Message: string, AppRoleName: string)",
};
const symbols = Object.entries(tables).map(([name, columns]) => Symbols.TableSymbol.From(columns).WithName(name));
const workspace = GlobalState.Default.WithDatabase(new Symbols.DatabaseSymbol.$ctor2("workspace", null, symbols, false));

const found = [];
const queries = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
for (const [name, query] of Object.entries(queries)) {
  const diagnostics = KustoCode.ParseAndAnalyze(query, workspace).GetDiagnostics();
  for (let i = 0; i < diagnostics.Count; i++) {
    const { Message, Start, Length } = diagnostics.getItem(i);
    found.push({ name, message: Message, text: query.slice(Start, Start + Length) });
  }
}
console.log(JSON.stringify(found));
