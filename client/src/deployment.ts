/**
 * Where a deployed page finds its regions, when that is fixed at build time. Such a page asks for no control API, and
 * shows nothing that needs one.
 */
import type { RegionAddress } from "./api/control.ts";

/** Name on the page of what one address for all regions (Front Door) leads to. */
const NEAREST = "Nearest region";

export interface BuildSettings {
  /** `West US=https://a.example,North Europe=https://b.example`: regions to choose from. */
  readonly VITE_REGIONS?: string;
  /** One address for all regions; `/` is the page's own origin. */
  readonly VITE_API_BASE?: string;
}

/**
 * The regions, or `undefined` when the page has to find out at run time.
 *
 * @throws {Error} in words for whoever builds the page.
 */
export function deployedRegions(settings: BuildSettings, page: string): RegionAddress[] | undefined {
  const { VITE_REGIONS: regions, VITE_API_BASE: base } = settings;
  if (regions && base) throw new Error("set VITE_REGIONS or VITE_API_BASE, not both");
  if (base) return [{ name: NEAREST, functions: address(base, page, "VITE_API_BASE") }];
  if (!regions) return undefined;
  const list = regions.split(",").map((entry) => {
    const [, name, url] = /^([^=]+)=(.+)$/.exec(entry.trim()) ?? [];
    if (!name || !url) throw new Error(`VITE_REGIONS: “${entry}” is not like “West US=https://a.example”`);
    return { name: name.trim(), functions: address(url.trim(), page, "VITE_REGIONS") };
  });
  if (new Set(list.map(({ name }) => name)).size < list.length)
    throw new Error("VITE_REGIONS: a region is named twice");
  return list;
}

function address(text: string, page: string, setting: string): string {
  const url = URL.canParse(text, page) ? new URL(text, page) : undefined;
  if (!url || !/^https?:$/.test(url.protocol) || url.search || url.hash) {
    throw new Error(`${setting}: “${text}” is not an http(s) address to which /api can be added`);
  }
  return url.href.replace(/\/+$/, "");
}
