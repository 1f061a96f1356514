// One alert on one metric of one resource.

@description('Name of the alert.')
param name string

@description('What it means and what to do.')
param summary string

@description('Tags of the alert.')
param tags object

@description('1 for an error, 2 for a warning.')
param severity int

@description('Resource whose metric is watched.')
param resourceId string

@description('Type of that resource, such as Microsoft.DocumentDB/databaseAccounts.')
param resourceType string

@description('Metric.')
param metric string

@description('Average, Count, Maximum, Minimum or Total over the window.')
param aggregation string

@description('GreaterThan or LessThan.')
param operator string

@description('Value that the aggregate is compared with.')
param threshold int

@description('Dimension filters: { name, values }.')
param dimensions array

@description('Time that is looked at, such as PT5M.')
param window string

@description('Who is told.')
param actionGroupId string

var dimensionFilters = [for dimension in dimensions: {
  name: dimension.name
  operator: 'Include'
  values: dimension.values
}]

resource alert 'Microsoft.Insights/metricAlerts@2018-03-01' = {
  name: name
  location: 'global'
  tags: tags
  properties: {
    description: summary
    severity: severity
    enabled: true
    scopes: [resourceId]
    evaluationFrequency: 'PT5M'
    windowSize: window
    autoMitigate: true
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          criterionType: 'StaticThresholdCriterion'
          name: 'threshold'
          metricNamespace: resourceType
          metricName: metric
          timeAggregation: aggregation
          operator: operator
          threshold: threshold
          dimensions: dimensionFilters
        }
      ]
    }
    actions: [{ actionGroupId: actionGroupId }]
  }
}
