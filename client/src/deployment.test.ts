import { describe, expect, it } from "vitest";
import { deployedRegions } from "./deployment.ts";

const PAGE = "https://page.example/dashboard/";

describe("the regions of a deployed page", () => {
  it("are found at run time unless the build says otherwise", () => {
    expect(deployedRegions({}, PAGE)).toBeUndefined();
    expect(deployedRegions({ VITE_REGIONS: "", VITE_API_BASE: "" }, PAGE)).toBeUndefined();
  });

  it("are a list, or one address for all", () => {
    const VITE_REGIONS = "West US=https://a.example/, North Europe=https://b.example";
    expect(deployedRegions({ VITE_REGIONS }, PAGE)).toEqual([
      { name: "West US", functions: "https://a.example" },
      { name: "North Europe", functions: "https://b.example" },
    ]);
    const one = (base: string) => deployedRegions({ VITE_API_BASE: base }, PAGE)?.[0]?.functions;
    expect([one("https://geo.example"), one("https://geo.example/v1/"), one("/")]).toEqual([
      "https://geo.example",
      "https://geo.example/v1",
      "https://page.example",
    ]);
  });

  it.each([
    [{ VITE_REGIONS: "a=https://a.example", VITE_API_BASE: "/" }, "not both"],
    [{ VITE_REGIONS: "https://a.example" }, "is not like"],
    [{ VITE_REGIONS: "a=https://a.example,a=https://b.example" }, "named twice"],
    [{ VITE_REGIONS: "a=ftp://a.example" }, "VITE_REGIONS: “ftp://a.example” is not"],
    [{ VITE_API_BASE: "https://a.example/?x" }, "VITE_API_BASE"],
  ])("are refused when they cannot be meant: %j", (settings, message) => {
    expect(() => deployedRegions(settings, PAGE)).toThrow(message);
  });
});
