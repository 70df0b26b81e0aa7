// Draws ../petalpaw.json with Grafana's own components. The page's address says from which Prometheus, and which time:
// ?prometheus=http://127.0.0.1:9090&from=SECONDS&to=SECONDS
import {
  FieldType, LoadingState, applyFieldOverrides, createDataFrame, createTheme, dateTime, rangeUtil,
  standardFieldConfigEditorRegistry, standardTransformers, standardTransformersRegistry, transformDataFrame,
} from "@grafana/data";
import { GlobalStyles, InlineField, Input, PanelChrome, Table, ThemeContext, TimeSeries } from "@grafana/ui";
import { merge, uniqBy } from "lodash";
import { createRoot } from "react-dom/client";
import { firstValueFrom } from "rxjs";
import dashboard from "../petalpaw.json";

const asked = new URLSearchParams(location.search);
const [from, to] = ["from", "to"].map((end) => dateTime(1000 * asked.get(end)));
const timeRange = { from, to, raw: { from, to } };
const theme = createTheme({ colors: { mode: "dark" } });
// Pixels; a dashboard's cell is Grafana's. Seconds between scrapes as in the data source that is provisioned.
const WIDTH = 1600, TOP = 56, ROW = 30, GAP = 8, SCRAPE_S = 5;

// What Grafana's two panels have where the dashboard says nothing.
const LINES = {
  drawStyle: "line", lineInterpolation: "linear", lineWidth: 1, fillOpacity: 0, gradientMode: "none",
  stacking: { mode: "none", group: "A" }, showPoints: "auto", pointSize: 5, spanNulls: false,
  axisPlacement: "auto", axisColorMode: "text", axisLabel: "", scaleDistribution: { type: "linear" },
  hideFrom: { tooltip: false, viz: false, legend: false }, thresholdsStyle: { mode: "off" },
};
const CELLS = { align: "auto", cellOptions: { type: "auto" } };
const DEFAULTS = {
  timeseries: { fieldConfig: { defaults: { color: { mode: "palette-classic" }, custom: LINES } } },
  table: { fieldConfig: { defaults: { custom: CELLS } } },
};
const LEGEND = { displayMode: "list", placement: "bottom", showLegend: true, calcs: [] };

// Grafana's libraries leave it to the application which transformations and properties of fields there are.
const process = (value) => value, shouldApply = () => true;
const property = (path) => ({ id: path, path, name: path, process, shouldApply });
const custom = (path) => ({ ...property(path), id: `custom.${path}`, isCustom: true });
standardFieldConfigEditorRegistry.setInit(() => [
  ...["unit", "min", "max", "decimals", "displayName", "color", "thresholds", "mappings", "noValue"].map(property),
  ...[...Object.keys(LINES), ...Object.keys(CELLS), "axisSoftMin", "axisSoftMax", "width"].map(custom),
]);
standardTransformersRegistry.setInit(() =>
  uniqBy(Object.values(standardTransformers), "id").map((one) => ({ ...one, transformation: one })));

async function answer(path, query) {
  const response = await fetch(`${asked.get("prometheus")}/api/v1/${path}?${new URLSearchParams(query)}`);
  const { status, error, data } = await response.json();
  if (status !== "success") throw new Error(error);
  return data;
}

// A variable has the value that the dashboard chose, else all where it may be all, else the first there is.
async function chosen({ name, label, type, query, includeAll, allValue, current }) {
  if (type === "datasource") return [name, { label, value: "Prometheus" }];
  if (current.value) return [name, { label, value: current.value }];
  if (includeAll) return [name, { label, text: "All", value: allValue }];
  const [, metric, of] = /^label_values\((.*), *(\w+)\)$/.exec(query);
  const [value] = await answer(`label/${of}/values`, { "match[]": metric, start: from.unix(), end: to.unix() });
  return [name, { label, value }];
}

const variables = Object.fromEntries(await Promise.all(dashboard.templating.list.map(chosen)));
const filled = (text) => text.replace(/\$\{?(\w+)\}?/g, (whole, name) => variables[name]?.value ?? whole);

async function frames({ targets }, width) {
  const { intervalMs } = rangeUtil.calculateInterval(timeRange, width, `${SCRAPE_S}s`);
  const step = intervalMs / 1000;
  variables.__rate_interval = { value: `${Math.max(step + SCRAPE_S, 4 * SCRAPE_S)}s` };
  const answers = await Promise.all(targets.map(async (target) => {
    const query = filled(target.expr);
    if (target.instant) return rows((await answer("query", { query, time: to.unix() })).result);
    const start = Math.ceil(from.unix() / step) * step;
    const { result } = await answer("query_range", { query, start, end: to.unix(), step });
    return result.map((one) => series(target, one, intervalMs));
  }));
  return answers.flat();
}

function series({ refId, legendFormat }, { metric, values }, interval) {
  const displayNameFromDS = legendFormat.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label) => metric[label] ?? "");
  const numbers = values.map(([, value]) => (Number.isFinite(Number(value)) ? Number(value) : null));
  return createDataFrame({ refId, fields: [
    { name: "Time", type: FieldType.time, config: { interval }, values: values.map(([time]) => 1000 * time) },
    { name: "Value", type: FieldType.number, labels: metric, config: { displayNameFromDS }, values: numbers },
  ] });
}

function rows(found) {
  const labels = [...new Set(found.flatMap(({ metric }) => Object.keys(metric)))].sort();
  return createDataFrame({ fields: [
    { name: "Time", type: FieldType.time, values: found.map(({ value }) => 1000 * value[0]) },
    ...labels.map((name) => ({ name, type: FieldType.string, values: found.map(({ metric }) => metric[name]) })),
    { name: "Value", type: FieldType.number, values: found.map(({ value }) => Number(value[1])) },
  ] });
}

async function drawn({ id, type, title, description, gridPos: { x, y, w, h }, ...panel }) {
  const column = (WIDTH - GAP) / 24;
  const width = w * column - GAP, height = h * (ROW + GAP) - GAP;
  const raw = await firstValueFrom(transformDataFrame(panel.transformations ?? [], await frames(panel, width)));
  const fieldConfig = merge({}, DEFAULTS[type].fieldConfig, panel.fieldConfig);
  // JSON has no infinity: the lowest step of thresholds is null there.
  for (const step of fieldConfig.defaults.thresholds?.steps ?? []) step.value ??= -Infinity;
  const data = applyFieldOverrides({ data: raw, fieldConfig, theme, timeZone: "utc", replaceVariables: filled });
  const content = (innerWidth, innerHeight) => {
    const size = { width: innerWidth, height: innerHeight };
    if (!data.some((frame) => frame.length)) return <center>No data</center>;
    if (type === "table") return <Table {...size} data={data[0]} />;
    return <TimeSeries {...size} frames={data} timeRange={timeRange} timeZone="utc" legend={LEGEND} />;
  };
  const chrome = { width, height, title: filled(title), description, padding: type === "table" ? "none" : "md" };
  return (
    <div key={id} style={{ position: "absolute", left: GAP + x * column, top: TOP + y * (ROW + GAP) }}>
      <PanelChrome {...chrome} loadingState={LoadingState.Done}>{content}</PanelChrome>
    </div>
  );
}

const panels = await Promise.all(dashboard.panels.map(drawn));
const fields = Object.values(variables).filter(({ label }) => label).map(({ label, text, value }) => (
  <InlineField key={label} label={label}><Input readOnly value={text ?? value} width={18} /></InlineField>
));
createRoot(document.querySelector("main")).render(
  <ThemeContext.Provider value={theme}>
    <GlobalStyles />
    <div style={{ display: "flex", gap: GAP, padding: GAP }}>{fields}</div>
    {panels}
  </ThemeContext.Provider>,
);
